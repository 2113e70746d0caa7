"""Sweeps: which jobs there are, that each is done exactly once, and where they run."""

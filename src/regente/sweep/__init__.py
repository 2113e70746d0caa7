"""Sweeps: which jobs there are, that each is done exactly once, and on which slots."""

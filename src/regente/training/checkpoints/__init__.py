"""Checkpoints that survive kills and full disks, and how a run goes on from them."""

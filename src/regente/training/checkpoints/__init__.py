"""How checkpoints are written, and how a run is resumed from them or starts with their weights."""

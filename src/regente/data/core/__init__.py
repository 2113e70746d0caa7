"""What the data modules stand on: batches in memory, files, caches, seeds."""

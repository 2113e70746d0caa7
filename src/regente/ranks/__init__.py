"""Several processes and machines: who they are, how they meet, start, stop and share their work."""

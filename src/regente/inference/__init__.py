"""What can be done with a finished run: evaluate, predict, generate, export, serve, rerun."""

"""What is measured, logged and saved during a training."""

"""What is measured, logged and saved while a model trains."""

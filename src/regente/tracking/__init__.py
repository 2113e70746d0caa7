"""Everything that goes to MLflow."""

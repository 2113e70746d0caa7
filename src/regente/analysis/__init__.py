"""What came of many runs: compare, explain, report. Reads job directories; imports no torch and no MLflow by itself."""

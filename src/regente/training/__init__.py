"""Build and fit a job, in one process or in several ranks."""

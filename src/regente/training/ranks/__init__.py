"""Several processes and machines of one job: how they start, meet, agree and stop."""

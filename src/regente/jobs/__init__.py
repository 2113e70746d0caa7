"""The job directory, the names of runs, how a job ends, what this machine has, what the terminal shows."""

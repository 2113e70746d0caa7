"""The `regente` command: one file per family of commands."""

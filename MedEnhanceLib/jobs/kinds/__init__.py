"""One file for each kind of job: its options and its function."""

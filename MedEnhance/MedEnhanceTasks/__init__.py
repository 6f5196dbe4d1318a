"""Jobs started from nodes or files: checks and sending before, loading the results after."""

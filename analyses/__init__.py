"""Questions asked of the model, one a file: a configuration, a run, a table, a figure."""

"""Where the stages are put together: targets, walks, names, recordings."""

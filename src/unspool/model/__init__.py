"""The values that all layers share; this package imports nothing of ours."""

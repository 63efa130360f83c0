"""kill -9 of real gateway processes at every point of their path."""

"""The state machines: one file each, table first, then the fold."""

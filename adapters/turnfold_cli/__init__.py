"""The command line: composition root, may import all, nothing imports it."""

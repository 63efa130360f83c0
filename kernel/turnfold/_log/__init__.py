"""The stored log: events, their bytes and hashes, and the names of streams."""

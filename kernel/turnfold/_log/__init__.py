"""The stored log: events, their bytes and hashes, and how streams are named."""

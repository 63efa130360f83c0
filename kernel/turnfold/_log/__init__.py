"""What is stored: events, their bytes and hashes, and how streams are named."""

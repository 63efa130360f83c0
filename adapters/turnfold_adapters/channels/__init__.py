"""Channels: one module per platform. Its library is imported at first use."""

"""Channels: one module per platform, its library imported only when it is used."""

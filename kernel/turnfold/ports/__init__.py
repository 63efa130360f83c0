"""Protocols that stores and channels implement."""

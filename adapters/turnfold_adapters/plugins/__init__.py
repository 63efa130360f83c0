"""Stores for the state of plugins."""

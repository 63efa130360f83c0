"""Walks of the real kernel over every edge of its machines."""

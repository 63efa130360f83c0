"""Existing applications of other frameworks, made durable."""

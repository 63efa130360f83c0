"""Drivers answer the effects of programs. One in production, one that crashes."""

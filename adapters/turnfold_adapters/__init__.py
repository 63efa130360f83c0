"""Stores and channels. The kernel imports none of them."""

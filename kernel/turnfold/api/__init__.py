"""The interface for embedders: the kernel, its commands, and the border to their
code."""

"""What an embedder calls: the kernel, its commands, and the border to its own code."""

"""The Hypothesis machine: people, platforms and crashes by chance."""

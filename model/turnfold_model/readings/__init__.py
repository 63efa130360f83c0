"""Logs that are damaged on purpose; the kernel's audit and the reference read them alike."""

"""Decisions: pure functions from folded state and a command to events.

Each takes a Draft first. They read state through it and emit events into it; they do
no I/O, read no clock and throw no dice: time, ids, salts and jitter come with the
Draft or as arguments. A decision that raises leaves no trace. A decision may run again
after a conflict or a commit of unknown fate, so each is safe to repeat.
"""

"""Hosts on a real PostgreSQL, stopped at each statement that they send.

`hosts` has one process with a loop of its own, `scenes` what it does, `witness` what the
server itself saw, `play` one stop and what follows it, `search` all of them.
"""

"""Hosts on a real PostgreSQL, stopped at each statement that they send.

`hosts` has one process with a loop of its own, `scenes` what it does, `witness` what the
server itself saw, `play` one stop and what follows it, `theatre` the server of all plays,
`search` all stops. `company` and `together` have two hosts that share the shards,
`failover` a server that goes back.
"""

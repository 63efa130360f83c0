"""The kernel's own programs under exhaustive crashes, faults and interleavings.

`scenario` lists the messages and faults, `world` survives a crash, `life` is one process,
`explore` enumerates them all, `verdict` checks the end of each.
"""

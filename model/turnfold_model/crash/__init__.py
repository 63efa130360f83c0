"""The kernel's own programs under exhaustive crashes, faults and interleavings.

`scenario` says what happens, `world` is what survives a crash, `life` is one process,
`explore` enumerates them all, `verdict` says what must hold at the end of each.
"""

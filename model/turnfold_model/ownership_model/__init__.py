"""Who may write to a store that several hosts share, and who may send (specs/postgres.md)."""

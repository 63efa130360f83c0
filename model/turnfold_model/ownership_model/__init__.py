"""The right to write to a store that several hosts share, and the right to send
(specs/postgres.md)."""

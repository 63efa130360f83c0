"""Power loss: every image that a life of the SQLite store may leave on its disk."""

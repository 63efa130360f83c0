"""A day of a gateway in fast motion, with everything that goes wrong in it."""

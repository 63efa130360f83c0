"""A simulated day of a gateway with many faults."""

"""The running kernel: programs, their driver, and one commit per tick of the loop."""

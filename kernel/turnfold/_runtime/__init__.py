"""What happens, on which thread: programs, their driver, and one commit per tick."""

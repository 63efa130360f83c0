"""The product broken on purpose, one rule at a time; some checker must notice each."""

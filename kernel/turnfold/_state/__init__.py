"""The states of a log: for each kind of stream a table of transitions and a fold."""

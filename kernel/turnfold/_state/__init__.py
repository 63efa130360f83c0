"""What a log adds up to: for each kind of stream a table of transitions and a fold."""

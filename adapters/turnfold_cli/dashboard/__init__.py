"""The dashboard of `turnfold serve`: pages rendered by the server, with the same
queries, acts and words as the command line."""

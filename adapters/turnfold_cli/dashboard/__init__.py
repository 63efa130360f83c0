"""The dashboard of `turnfold serve`: pages that a server renders, over the same questions,
acts and words as the command line."""

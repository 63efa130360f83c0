"""Stores that ship with turnfold; each passes `turnfold_model.check_store`."""

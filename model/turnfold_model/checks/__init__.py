"""The contracts of stores and channels as checks; `check_store` and `check_channel` run them."""

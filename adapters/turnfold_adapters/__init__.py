"""What turnfold talks to: stores and channels. The kernel imports none of it."""

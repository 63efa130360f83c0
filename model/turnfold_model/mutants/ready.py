"""Imported once by the process that forks off one for each mutant (see `isolate`), which
then has all that a checker needs. To import pytest anew took longer than the tests."""

import gc

from turnfold_model.mutants import command, tests

__all__ = ["command"]

tests.make_ready()
gc.freeze()  # what the forks share is not searched for garbage in each of them

"""Programs: everything with an effect, as generators that yield effects.

A program keeps no local across iterations of its outer loop: each iteration starts
from the folded state, so the worker and its recovery are the same code. A program that
has nothing to do now returns the wall time to be started again at, or none.
"""

from turnfold.programs.entries import expiry, lane, send
from turnfold.programs.turns import control, run, turns

__all__ = ["control", "expiry", "lane", "run", "send", "turns"]

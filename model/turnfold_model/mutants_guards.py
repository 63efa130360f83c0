"""One mutant for each guard of the kernel, in each direction that could do harm."""

from typing import Final

from turnfold_model.mutants_code import Edit, Mutant, one

_G = "turnfold.guards"
_TEST = (
    "test:fast/test_guards.py"  # what no execution can show, since others prevent it
)


def _says(guard: str, answer: bool, *killers: str) -> Mutant:
    """A guard that always says the same."""
    edit = Edit(f"{_G}:{guard}", "", f"return {answer}")
    return Mutant(f"{guard} is always {answer}", "guard", (edit,), killers)


GUARDS: Final = (
    _says("not_expired", True, "crash:expired-while-down"),
    _says("not_aborted", True, "crash:abort-prepare", "crash:abort"),
    _says("budget_left", True, "crash:budget"),
    _says("not_quarantined", True, "crash:deaths"),
    _says("not_settled", True, _TEST),
    _says("resend_allowed", True, "crash:blind-hold", "crash:lookup"),
    _says("resend_allowed", False, "crash:keyed"),
    _says("may_look_up", False, "crash:lookup"),
    _says("may_look_up", True, "crash:blind-hold"),
    _says("absence_proven", True, "crash:lookup"),
    _says("sender_is_dead", True, "crash:one"),
    _says("sender_is_dead", False, "crash:blind-hold"),
    _says("no_doubt", True, "crash:budget"),
    _says("receipt_given", True, "answers"),
    _says("run_is_current", True, "crash:abort", "crash:zombie"),
    _says("not_answered", True, "crash:one"),
    _says("runner_is_dead", False, "crash:one"),
    _says("runner_is_dead", True, "crash:one"),
    _says("runs_left", True, "crash:few-runs"),
    _says("runs_left", False, "crash:one"),
    _says("abortable_as_unsent", True, "crash:abort"),
    _says("abortable_as_unsent", False, "crash:abort-reply"),
    _says("nothing_seen", True, "crash:not-resumed"),
    one(
        "a key counts outside its window",
        "guard",
        f"{_G}:key_window_open",
        "return window is None or (now - entry.first_at) * 2 < window",
        "return True",
        "crash:window",
    ),
    one(
        "no fence: an outcome of any worker counts",
        "guard",
        f"{_G}:outcome_is_current",
        "and entry.fence == fence",
        "",
        _TEST,
    ),
    one(
        "an outcome of any attempt counts",
        "guard",
        f"{_G}:outcome_is_current",
        "and entry.attempt == attempt",
        "",
        _TEST,
    ),
)

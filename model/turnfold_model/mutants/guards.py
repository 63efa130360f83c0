"""Mutants of `turnfold._decide.rules`: each guard taken out, in each direction that could do
harm. A guard that others back up is left to tests that ask it alone."""

from typing import Final

from turnfold_model.mutants.code import Edit, Mutant, one

_G = "turnfold._decide.rules"
_ALONE = "test:fast/test_guards.py"
_TURNS = "test:contract/test_behaviour_turns.py"
_DOUBT = "test:contract/test_behaviour_doubt.py"
_TIMES = "test:contract/test_two_times.py"
_OLD = "test:contract/test_entry_age.py"
_MANY = "test:contract/test_acts_on_many.py"
_PROBES = f"{_MANY}::no_new_worker"
_FAILS = f"{_MANY}::a_failure_does_not_move"
_RESTORED = "test:contract/test_restored.py"


def _says(guard: str, answer: bool, *killers: str, world: str = "") -> Mutant:
    """A guard that always says the same."""
    edit = Edit(f"{_G}:{guard}", "", f"return {answer}")
    name = f"{guard} is always {answer}"
    return Mutant(name, "guard", (edit,), killers, world)


def _without(
    name: str, guard: str, old: str, new: str, *killers: str, world: str = ""
) -> Mutant:
    return one(name, "guard", f"{_G}:{guard}", old, new, *killers, world=world)


_LIMITS = "test:contract/test_account_limits.py"

GUARDS: Final = (
    _says("account_is_limited", True, f"{_LIMITS}::two_busy_conversations"),
    _says("account_is_limited", False, f"{_LIMITS}::third_conversation"),
    _without(
        "a busy conversation is the account for ever",
        "account_is_limited",
        "conversation not in refused",
        "True",
        f"{_LIMITS}::speak_for_themselves",
    ),
    _says("not_expired", True, "crash:expired-while-down"),
    _says("expiry_is_sure", True, f"{_TIMES}::an_old_entry"),
    _says("expiry_is_sure", False, f"{_TIMES}::an_old_entry"),
    _says("too_old", True, _ALONE),
    _says("too_old", False, _ALONE),
    _says("key_window_open", True, f"{_ALONE}::half_of_a_window"),
    _says("key_window_open", False, f"{_ALONE}::half_of_a_window"),
    _says("key_age_is_sure", True, f"{_TIMES}::no_key_window"),
    _says("key_age_is_sure", False, f"{_TIMES}::needs_no_trust"),
    _says("not_aborted", True, "crash:abort-prepare", "crash:abort"),
    _says("budget_left", True, "crash:budget"),
    _says("not_quarantined", True, "crash:deaths"),
    _says("may_be_accepted", True, _ALONE),
    _says("may_be_accepted", False, _ALONE),
    _without(
        "a receipt that bounced is evidence after a redrive",
        "may_be_accepted",
        "wanted and not is_void(entry, part, receipt)",
        "wanted",
        _ALONE,
    ),
    _says("resend_allowed", True, "crash:blind-hold", "crash:lookup"),
    _says("resend_allowed", False, "crash:keyed"),
    _says("resends_left", True, f"{_DOUBT}::and_then_asks"),
    _says("resends_left", False, f"{_DOUBT}::blind_policy_does"),
    _says("may_look_up", False, "crash:lookup"),
    _says("may_look_up", True, "crash:blind-hold"),
    _says("absence_proven", True, "crash:lookup"),
    _says("sender_is_dead", True, "crash:one"),
    _says("sender_is_dead", False, "crash:blind-hold"),
    _says("no_doubt", True, "crash:budget"),
    _says("was_accepted", True, _ALONE),
    _without(
        "what may have arrived is too old",
        "too_old",
        "waits and nothing_seen(entry) and not is_live(entry)",
        "True",
        _ALONE,
        world="age",
    ),
    _without(
        "an answer that was shown in part is too old",
        "too_old",
        "nothing_seen(entry)",
        "True",
        f"{_OLD}::shown_in_part",
        f"{_OLD}::a_placeholder_that_stands",
    ),
    _without(
        "a clock that nobody can vouch for says what is too old",
        "too_old",
        "entry.since < sure_from",
        "False",
        _ALONE,
    ),
    _without(
        "a reply that grows is too old",
        "too_old",
        "is_live(entry)",
        "False",
        _ALONE,
    ),
    _without(
        "a death ends a turn that was left open",
        "runs",
        "turn.left_open is None",
        "True",
        _ALONE,
    ),
    _without(
        "doubt about another part is forgotten",
        "no_doubt",
        "entry.doubtful",
        "entry.doubt",
        _ALONE,
    ),
    _says("receipt_given", True, "answers", world="proof"),
    _says("head_of_lane", True, f"{_TURNS}::an_attempt_out_of_turn"),
    _says("run_is_current", True, "crash:abort", "crash:zombie", world="stale_run"),
    _says("run_is_ours", True, "test:fast/test_stale_worker.py::the_end_of_a_run"),
    _says("run_is_ours", False, "crash:store"),
    _says("not_answered", True, "crash:one"),
    _says("runner_is_dead", False, "crash:one"),
    _says("runner_is_dead", True, "crash:one"),
    _says("runs_left", True, f"{_TURNS}::a_handler_that_raises"),
    _says("runs_left", False, f"{_TURNS}::a_handler_that_raises"),
    _says("abortable_as_unsent", True, "crash:abort", world="abort"),
    _says("abortable_as_unsent", False, "crash:abort-reply"),
    _says("nothing_seen", True, "crash:not-resumed"),
    _says("placeholder_in_doubt", False, f"{_RESTORED}::a_placeholder_of_the_copy"),
    _says("placeholder_in_doubt", True, f"{_RESTORED}::a_later_part"),
    _says("history_is_whole", True, f"{_RESTORED}::a_later_part"),
    _says("history_is_whole", False, "crash:lookup"),
    _says("as_seen", True, f"{_MANY}::has_changed_is_refused"),
    _says("held_by_a_person", False, f"{_MANY}::no_reconnection", _PROBES, _FAILS),
    _says("bodies_kept", True, "test:contract/test_redacting.py::what_was_erased"),
    _without(
        "a key counts outside its window",
        "key_window_lasts",
        "(now - entry.first_at) * 2 < window",
        "True",
        "crash:window",
    ),
    _without(
        "the whole window of a key is used, with no margin for the clock",
        "key_window_lasts",
        "(now - entry.first_at) * 2 < window",
        "now - entry.first_at < window",
        _ALONE,
    ),
    _without(
        "no fence: an outcome of any worker counts",
        "outcome_is_current",
        "entry.fence == fence",
        "True",
        _ALONE,
    ),
    _without(
        "an outcome of any part counts",
        "outcome_is_current",
        "entry.part == part",
        "True",
        _ALONE,
    ),
    _without(
        "an outcome of any attempt counts",
        "outcome_is_current",
        "entry.attempt == attempt",
        "True",
        _ALONE,
    ),
    _without(
        "a run of an older worker may speak",
        "run_is_current",
        "turn.fence == fence",
        "True",
        _ALONE,
    ),
    _without(
        "a run speaks again once its turn is redriven",
        "run_is_current",
        "not turn.reopened",
        "True",
        _ALONE,
    ),
    _without(
        "an older run may speak",
        "run_is_current",
        "turn.run == run",
        "True",
        _ALONE,
    ),
)

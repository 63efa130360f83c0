"""The mutants of a part's frozen facts and of its end: policies, the class in force,
refusals."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_POLICIES = "turnfold._runtime.policies:policies"
_OUTBOX = "turnfold._decide.outbox"
_OUTCOMES = "turnfold._decide.outcomes"
_REDRIVES = "test:contract/test_redrives.py"
_PARTS = "test:contract/test_behaviour_parts.py"
_IN_DOUBT = "test:contract/test_decoration_in_doubt.py"
_ALONE = "test:fast/test_guards.py"
_ATTACH = "test:fast/test_attach.py"
_DOUBT = "test:contract/test_behaviour_doubt.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


PARTS: Final = (
    _broken(
        "a hold is not told",
        f"{_OUTBOX}:tell_of_a_hold",
        "",
        "return None",
        f"{_PARTS}::a_hold_reaches",
    ),
    _broken(
        "a notice goes out though the answer has arrived",
        f"{_OUTBOX}:_withdraw_notices",
        "",
        "return None",
        f"{_PARTS}::withdrawn_when_the_answer",
    ),
    _broken(
        "a bounce is not told",
        f"{_OUTBOX}:amend",
        "entry.bounced",
        "False",
        f"{_PARTS}::a_bounce_reaches",
    ),
    one(
        "a turn stays over while its answer is sent again",
        "decision",
        f"{_OUTBOX}:reopen",
        "",
        "return",
        f"{_REDRIVES}::redriven_final_is_closed",
        world="reopen",
    ),
    _broken(
        "a redrive leaves the notice that the answer failed",
        f"{_OUTBOX}:reopen",
        "_withdraw_notices(draft, turn)",
        "None",
        f"{_REDRIVES}::takes_a_notice_back",
    ),
    _broken(
        "a late receipt leaves the notice that the answer failed",
        f"{_OUTBOX}:amend",
        "outcome is TurnOutcome.REPLIED",
        "False",
        f"{_REDRIVES}::withdraws_the_notice",
    ),
    _broken(
        "an abort of before a redrive stays",
        "turnfold._state.turn:_reopened",
        "turn.reason = turn.abort = turn.abort_by = None",
        "turn.reason = None",
        f"{_REDRIVES}::before_the_redrive",
    ),
    _broken(
        "the audit lets a turn stay over while its answer is sent again",
        "turnfold.audit.joint:Joint._owes_again",
        "",
        "return",
        "test:fast/test_part_logs.py::wrong_log",
    ),
    _broken(
        "a refused decoration goes out again",
        "turnfold._runtime.sender:_part",
        "if planned.dropped:",
        "if False:",
        f"{_PARTS}::left_out_by_the_next",
    ),
    _broken(
        "the loss of a decoration spends the budget",
        "turnfold._state.entry_fold:_amended",
        "max(e.used - 1, 0)",
        "e.used",
        f"{_PARTS}::ends_nothing_and_costs",
    ),
    _broken(
        "a decoration is dropped again and again",
        "turnfold._decide.rules:next_dropped",
        "there and d not in part.dropped",
        "there",
        f"{_PARTS}::goes_on_refusing",
    ),
    _broken(
        "a part in doubt goes out again with what was refused",
        f"{_OUTCOMES}:_refused_in_doubt",
        "dropped is not None",
        "False",
        f"{_IN_DOUBT}::keeps_its_key",
    ),
    _broken(
        "a part in doubt loses a decoration under a new key",
        f"{_OUTCOMES}:_undecorated_in_doubt",
        "here.key",
        "new_key(entry, entry.part)",
        f"{_IN_DOUBT}::keeps_its_key",
    ),
    _broken(
        "the window of a key begins again when a part in doubt loses a decoration",
        "turnfold._state.entry_fold:_amended",
        "e.phase is not Phase.IN_DOUBT",
        "True",
        f"{_IN_DOUBT}::window_of_its_key",
    ),
    _broken(
        "the audit lets a part in doubt go out under another key",
        "turnfold.audit.entry_rules:amended",
        "event.key != before.parts[event.part].key",
        "False",
        "test:fast/test_part_logs.py::wrong_log",
    ),
    _broken(
        "the audit lets an attempt without doubt be put off for a decoration",
        "turnfold.audit.entry_rules:_not_delivered",
        "(FailureClass.DECORATION,) if before.doubtful else ()",
        "(FailureClass.DECORATION,)",
        "test:fast/test_part_logs.py::wrong_log",
    ),
    _broken(
        "a refused part takes the others with it",
        f"{_OUTCOMES}:_rejected",
        "rule.alone",
        "False",
        f"{_PARTS}::does_not_take_the_words",
    ),
    _broken(
        "words wait behind files after a refusal",
        "turnfold._state.entry:first_open",
        "not (parts and others.refused)",
        "True",
        f"{_PARTS}::words_go_before_files",
    ),
    _broken(
        "an entry of which nothing is left stays open",
        f"{_OUTCOMES}:_go_on",
        "entry.phase is QUEUED and entry.part >= entry.count",
        "False",
        f"{_PARTS}::nothing_is_taken",
    ),
    _broken(
        "an entry of which nothing arrived is called partial",
        f"{_OUTCOMES}:_go_on",
        "entry.receipts",
        "True",
        f"{_PARTS}::nothing_is_taken",
    ),
    _broken(
        "a reader is not told what is missing",
        f"{_OUTBOX}:_tell_what_is_missing",
        "",
        "return None",
        f"{_PARTS}::does_not_take_the_words",
    ),
    _broken(
        "a reader who is gone is told what is missing",
        f"{_OUTBOX}:_tell_what_is_missing",
        "any((e.failure in _NO_ONE_THERE for e in failed))",
        "False",
        f"{_PARTS}::where_nobody_reads",
    ),
    _broken(
        "a class is relied on that the channel does not claim any more",
        "turnfold._decide.rules:in_force",
        "tuple([c for c in part.classes if c in claimed.classes])",
        "part.classes",
        "crash:keyed-then-blind",
    ),
    _broken(
        "a window is relied on that the channel does not claim any more",
        "turnfold._decide.rules:in_force",
        "min(windows, default=None)",
        "part.key_window_ms",
        f"{_ALONE}::class_in_force",
    ),
    _broken(
        "absence is believed before the settle time that the channel claims now",
        "turnfold._decide.rules:in_force",
        "max(part.settle_ms, claimed.settle_ms)",
        "part.settle_ms",
        f"{_ALONE}::class_in_force",
    ),
    _broken(
        "a look-up is believed by the settle time of the plan alone",
        "turnfold._runtime.sender:Sender._unsettled",
        "rules.in_force(entry.current, claimed)",
        "entry.current",
        f"{_DOUBT}::longer_settle_time",
    ),
    _broken(
        "a part goes out again unmarked where the channel shows no mark any more",
        "turnfold._decide.rules:can_mark",
        "",
        "return True",
        f"{_DOUBT}::shows_no_mark_any_more",
    ),
    _broken(
        "no attempt asks for the class in force",
        "turnfold._decide.schedule:as_offered",
        "",
        "return entry",
        "crash:keyed-then-blind",
    ),
    _broken(
        "a channel is attached though nobody said what an unknown outcome means",
        _POLICIES,
        "if missing:",
        "if False:",
        f"{_ATTACH}::a_policy_must_be_said",
    ),
    _broken(
        "a channel that shows no marks is given resend_marked",
        _POLICIES,
        "not offers.marks",
        "False",
        f"{_ATTACH}::needs_a_channel_that_shows",
    ),
    _broken(
        "a plan does not freeze the policy of its channel",
        f"{_OUTBOX}:_policy",
        "part.policy",
        "None",
        f"{_DOUBT}::plan_freezes_the_policy",
    ),
    _broken(
        "the policy of a channel overrides that of an entry",
        f"{_OUTBOX}:_policy",
        "said is None",
        "True",
        f"{_DOUBT}::plan_freezes_the_policy",
    ),
    _broken(
        "an entry goes out again unmarked though it asked for a mark",
        f"{_OUTBOX}:_policy",
        "not made.marks",
        "False",
        f"{_DOUBT}::cannot_ask_for_a_mark",
    ),
    _broken(
        "an entry may ask for a mark that its channel does not show",
        "turnfold.api.commands:_policy",
        "marked and desk is not None and (not desk.capabilities.marks)",
        "False",
        f"{_DOUBT}::cannot_ask_for_a_mark",
    ),
)

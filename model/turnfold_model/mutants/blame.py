"""The mutants of runs: the blame for the death of a process, and a handler's calls."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_BLAME = "turnfold._decide.blame"
_TEST = "test:contract/test_blame.py"
_ENTRIES = "test:contract/test_blame_entries.py"
_TRIALS = "test:contract/test_trials.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


BLAME: Final = (
    _broken(
        "nobody is blamed, however often it was alone",
        "turnfold._decide.rules:not_blamed",
        "turn.alone < limit",
        "True",
        "crash:poison",
        f"{_TEST}::alone_in_three_deaths",
    ),
    _broken(
        "each death is blamed on each turn",
        "turnfold._state.turn:_suspect",
        "event.beside == 0",
        "event.beside is not None",
        "crash:poison",
        f"{_TEST}::crash_loop_with_another_cause",
    ),
    _broken(
        "what was being sent at a death does not count as beside",
        f"{_BLAME}:_is_dead",
        "rules.sender_is_dead(state, epoch)",
        "False",
        "crash:poison-lane",
        f"{_TEST}::what_was_sent_at_the_death",
    ),
    _broken(
        "what a turn was sending at a death counts as beside it",
        f"{_BLAME}:bury",
        "len(group) - 1 - own",
        "len(group) - 1",
        "crash:poison-lane",
    ),
    _broken(
        "a turn that is held runs",
        "turnfold._decide.turns:next_turn",
        "turn.phase is ANSWERED or turn.held",
        "turn.phase is ANSWERED",
        "crash:poison-lane",
    ),
    _broken(
        "a person cannot let a held turn run",
        "turnfold._decide.operator:unhold",
        "draft.emit(stream, t.Unheld(by=by, why=draft.text(stream, why)))",
        "pass",
        "crash:poison-unheld",
    ),
    _broken(
        "all suspects run at once",
        "turnfold._decide.rules:may_run_beside",
        "not turn.suspects or suspects < max(1, turn.suspects // 2)",
        "True",
        "crash:poison",
        f"{_TEST}::half_of_the_suspects",
    ),
    _broken(
        "the last suspect has others beside it",
        "turnfold._decide.rules:may_run_beside",
        "return not running",
        "return True",
        "test:fast/test_guards.py::tried_alone_waits",
    ),
    _broken(
        "others start beside the last suspect",
        "turnfold._decide.rules:may_run_beside",
        "any(other.on_trial for other in running)",
        "False",
        f"{_TEST}::half_of_the_suspects",
    ),
    _broken(
        "each death is blamed on each entry",
        "turnfold._state.entry:Blame.after_death",
        "beside == 0",
        "beside is not None",
        f"{_ENTRIES}::crash_loop_with_another_cause",
    ),
    _broken(
        "a death spends the budget of an entry",
        "turnfold._state.entry_fold:_moved",
        "event.cause in _FREE",
        "event.cause == SHUTDOWN",
        f"{_ENTRIES}::crash_loop_with_another_cause",
    ),
    _broken(
        "a death before the wire spends the budget of an entry",
        "turnfold._state.entry_fold:_retryable",
        "e.used - (event.failure is FailureClass.OWNER_DIED)",
        "e.used",
        f"{_ENTRIES}::crash_loop_with_another_cause",
    ),
    _broken(
        "an entry that was alone in its deaths is ended",
        "turnfold._decide.outcomes:settle_doubt",
        "policy is BlindPolicy.HOLD or not alive",
        "policy is BlindPolicy.HOLD",
        f"{_ENTRIES}::entry_that_kills",
    ),
    _broken(
        "all suspect entries are sent at once",
        "turnfold._decide.rules:may_send_beside",
        "not mine or suspects < max(1, mine // 2)",
        "True",
        "test:fast/test_guards.py::half_of_the_suspect_entries",
    ),
    _broken(
        "the last suspect entry has others beside it",
        "turnfold._decide.rules:may_send_beside",
        "return not flying and not running",
        "return True",
        "test:fast/test_guards.py::entry_that_is_tried_alone",
    ),
    _broken(
        "others are sent beside the last suspect entry",
        "turnfold._decide.rules:may_send_beside",
        "any(other.blame.on_trial for other in flying)",
        "False",
        "test:fast/test_guards.py::entry_that_is_tried_alone",
    ),
    _broken(
        "no lane asks who may be sent beside a suspect",
        "turnfold._decide.schedule:_unless_suspect",
        "draft.suspected and not _may_go_now(draft, entry)",
        "False",
        f"{_ENTRIES}::half_of_the_suspect_entries",
    ),
    _broken(
        "a last suspect waits for ever for a quiet moment",
        "turnfold._decide.schedule:_may_go_now",
        "entry.blame.on_trial and not patient",
        "False",
        f"{_ENTRIES}::never_alone",
    ),
    _broken(
        "a death in a plan or a look-up is blamed on nothing",
        "turnfold._decide.rules:trial_is_dead",
        "entry.trying",
        "False",
        f"{_TRIALS}::dies_in_a_call",
    ),
    _broken(
        "a plan or a look-up is not announced",
        "turnfold._decide.trials:begin",
        "entry.phase is not Phase.RETRYABLE",
        "False",
        f"{_TRIALS}::dies_in_a_call",
    ),
    _broken(
        "a look-up begins for an entry that has moved on",
        "turnfold._decide.rules:trial_needed",
        "entry.phase is Phase.IN_DOUBT",
        "True",
        f"{_TRIALS}::needed_no_more",
    ),
    _broken(
        "an answer of the platform is taken for the part of now",
        "turnfold._decide.rules:look_up_is_current",
        "(entry.part, entry.attempt) == (part, attempt)",
        "True",
        f"{_TRIALS}::speaks_of_the_part",
    ),
    _broken(
        "a stop is blamed on the plan that it cut off",
        "turnfold._decide.trials:stopped",
        "entry.trying",
        "False",
        f"{_TRIALS}::a_stop_counts_nothing",
    ),
    _broken(
        "a stop leaves a plan without its end that had begun by the log alone",
        "turnfold._decide.schedule:_may_be_held",
        "not entry.trying",
        "True",
        f"{_TRIALS}::begun_by_the_log_alone",
    ),
    _broken(
        "a plan is announced again and again",
        "turnfold._decide.schedule:_to_plan",
        "entry.trying",
        "False",
        f"{_TRIALS}::begun_by_the_log_alone",
    ),
    _broken(
        "the turns of a death are buried one by one",
        "turnfold._runtime.programs:take_over",
        "yield from _answered(Look(blame.has_orphans), 'taking over')",
        "False",
        "crash:poison",
        f"{_TEST}::alone_in_three_deaths",
    ),
    _broken(
        "a question of yesterday is answered as if it were fresh",
        "turnfold._decide.turns:_too_old",
        "age is not None and age > limit",
        "False",
        "test:contract/test_age.py::too_old_to_be_run",
    ),
    _broken(
        "a message expires by a clock that nobody can vouch for",
        "turnfold._decide.rules:age_of",
        "turn.created < sure_from",
        "False",
        "test:fast/test_guards.py::age_of_a_message",
    ),
    _broken(
        "a second reply with another payload is swallowed",
        "turnfold._decide.turns:reply",
        "if first.differs:",
        "if False:",
        "test:contract/test_behaviour_turns.py::a_second_reply",
    ),
    _broken(
        "a store that fails costs a run",
        "turnfold.api.callbacks:Handlers.run",
        "return RunEnd('stopped', STORE_FAILS)",
        "return RunEnd('raised', 'x')",
        "test:contract/test_handle.py::costs_no_run",
    ),
    _broken(
        "a run that could not store its answer is counted",
        "turnfold.api.callbacks:Handlers._is_of_our_store",
        "isinstance(error, TAKES_NONE)",
        "False",
        "test:contract/test_full_disk.py::is_not_counted",
    ),
    _broken(
        "a computed answer is dropped when the disk is full",
        "turnfold.api.callbacks:_answer",
        "_reply(handle, given)",
        "handle.reply(given)",
        "test:contract/test_full_disk.py::kept_until_there_is_room",
    ),
    _broken(
        "a call without await is not noticed",
        "turnfold.api.handle:TurnHandle.check_awaited",
        "if left:",
        "if False:",
        "test:contract/test_handle.py::nobody_awaits",
    ),
    _broken(
        "a live reply that is left open is not noticed",
        "turnfold.api.handle:TurnHandle.check_left",
        "live.has_unsent_text",
        "False",
        "test:contract/test_handle.py::still_open_is_a_bug",
    ),
    _broken(
        "an open live reply counts though something else answered",
        "turnfold.api.handle:TurnHandle.check_left",
        "turn.phase is TurnPhase.RUNNING and turn.left_open is None",
        "True",
        "test:contract/test_handle.py::another_end_of_the_turn",
    ),
)

"""The mutants of a handler's messages, and of waits for their ends."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_TURNS = "turnfold._decide.turns"
_WAITS = "turnfold.api.waiting"
_TEST = "test:contract/test_sends.py"
_CAPTIONS = "test:contract/test_captions.py"
_FILES = "test:contract/test_native_files.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


SENDING: Final = (
    _broken(
        "a call that the kernel has cut off is a bug of its channel",
        "turnfold._runtime.sender:Sender._listen",
        "end.cancelled and (call.timed_out or self.stopping)",
        "False",
        "test:contract/test_deadlines.py::slow_platform_is_no_bug",
    ),
    _broken(
        "a worker that was stopped sends a key that may be forgotten",
        "turnfold._runtime.sender:Sender._is_stale",
        "not rules.key_window_open(held, age, sure_from)",
        "False",
        "test:contract/test_stopped_worker.py::does_not_send_an_old_key",
    ),
    _broken(
        "a send that a person allowed is held back by the window of its key",
        "turnfold._runtime.sender:Sender._is_stale",
        "entry.act is not PartAct.SEND or entry.granted",
        "entry.act is not PartAct.SEND",
        "test:contract/test_stopped_worker.py::that_a_person_allowed",
    ),
    _broken(
        "a wire that says no is asked again without a pause",
        "turnfold._decide.outcomes:_rejected",
        "due = draft.now + _STOPPED_MS",
        "pass",
        "test:contract/test_stopped_worker.py::never_agrees",
    ),
    _broken(
        "a key is relied on right after the wall clock was set",
        "turnfold._runtime.sender:Sender._is_stale",
        "rules.key_window_open(held, age, sure_from)",
        "rules.key_window_open(held, age, 0)",
        "test:contract/test_stopped_worker.py::nobody_counted",
    ),
    _broken(
        "a worker that was stopped relies on a key that the channel no longer claims",
        "turnfold._decide.rules:held_to",
        "entry if parts == entry.parts else evolve(entry, parts=parts)",
        "entry",
        "test:contract/test_stopped_worker.py::shorter_window",
    ),
    _broken(
        "what is sent over all runs forbids another run",
        f"{_TURNS}:_told_twice",
        "e.run is not None and e.run > turn.forgiven and not rules.nothing_seen(e)",
        "not rules.nothing_seen(e)",
        "crash:sends",
    ),
    _broken(
        "what is sent over all runs is taken back by the next run",
        f"{_TURNS}:_drop_unsent",
        "entry.run is None or entry.run > turn.run",
        "entry.run is not None and entry.run > turn.run",
        f"{_TEST}::is_sent_after_a_failed_run",
    ),
    _broken(
        "a key over all runs names another entry in each run",
        "turnfold.api.handle:TurnHandle._say",
        "reply_entry(self.id, kind, run, key)",
        "reply_entry(self.id, kind, self.run, key)",
        f"{_TEST}::gets_the_first_sent",
    ),
    _broken(
        "a message over all runs is no answer",
        "turnfold._decide.rules:speaks_in",
        "entry.run == run or over_all_runs(entry)",
        "entry.run == run",
        f"{_TEST}::the_last_send_is_the_answer",
    ),
    _broken(
        "a message of an earlier run counts as said by this one",
        "turnfold._decide.rules:over_all_runs",
        "entry.run is None and entry.kind in (Kind.BLOCK, Kind.TOOL)",
        "True",
        f"{_TEST}::a_block_of_an_earlier_run",
    ),
    _broken(
        "what this run has sent counts as said before",
        "turnfold.api.handle:TurnHandle._say",
        "if done.new:",
        "if False:",
        f"{_TEST}::in_its_thread",
    ),
    _broken(
        "a wait for a receipt does not notice that its entry is parked",
        f"{_WAITS}:stands",
        "not state.open or state.phase is Phase.PARKED",
        "not state.open",
        f"{_TEST}::ends_when_the_entry_is_parked",
    ),
    _broken(
        "a wait for the end takes a parked entry for one",
        f"{_WAITS}:_over",
        "if parked:",
        "if True:",
        f"{_TEST}::ends_when_the_entry_is_parked",
    ),
    _broken(
        "a failed entry has a receipt",
        "turnfold.api.sent:receipt_of",
        "entry.phase is Phase.DELIVERED",
        "True",
        f"{_TEST}::apart",
    ),
    _broken(
        "the place that a call names is ignored",
        "turnfold.api.sent:destination",
        "evolve(route or home, **given)",
        "home",
        f"{_TEST}::where_it_answers",
    ),
    _broken(
        "a handler runs under no turn",
        "turnfold.api.callbacks:_answer",
        "CURRENT.set(handle)",
        "pass",
        f"{_TEST}::asks_for_the_turn",
    ),
    _broken(
        "a caption is lost where the channel has none",
        "turnfold._decide.plan:_with_captions",
        "yield Text(caption)",
        "pass",
        f"{_CAPTIONS}::with_its_file_or_before_it",
    ),
    _broken(
        "a caption that is too long goes with its file",
        "turnfold._decide.plan:_with_captions",
        "len(list(split_text(caption, most, capabilities.unit))) > 1",
        "False",
        f"{_CAPTIONS}::with_its_file_or_before_it",
    ),
    _broken(
        "the files of a native payload are left out where the channel has no way",
        "turnfold._decide.plan:_check_files",
        "not capabilities.native_files",
        "False",
        f"{_FILES}::refuses_at_the_call",
    ),
    _broken(
        "the files of a native payload are no part of what a key stands for",
        "turnfold._log.bodies:same",
        "body(name) == content",
        "True",
        f"{_FILES}::owns_a_copy",
    ),
    _broken(
        "the contents of a native payload's files are not erased with it",
        "turnfold._log.bodies:contents_in",
        "data.startswith((FILE, NATIVE))",
        "data.startswith(FILE)",
        f"{_FILES}::owns_a_copy",
    ),
)

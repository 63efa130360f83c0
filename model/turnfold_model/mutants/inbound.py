"""The mutants of inbound messages: keys, evidence, unreadable updates."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_ACCEPTING = "turnfold._decide.accepting"
_RAISING = "test:contract/test_raising_values.py"
_INBOUND = "test:contract/test_inbound.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


INBOUND: Final = (
    _broken(
        "a cursor goes back in the order of its source",
        "turnfold._state.fold:goes_on",
        "rank >= cursor.rank",
        "True",
        "test:contract/test_behaviour_accept.py::never_goes_back",
    ),
    _broken(
        "a cursor with a lower rank is refused, and its message with it",
        f"{_ACCEPTING}:advance",
        "before is not None and not goes_on(before, cursor.rank)",
        "False",
        "test:contract/test_behaviour_accept.py::never_goes_back",
    ),
    _broken(
        "a message without an id is taken twice by a commit of unknown fate",
        f"{_ACCEPTING}:_made_before",
        "None if draft.find_turn(turn) is None else turn",
        "None",
        f"{_INBOUND}::taken_once_by_a_commit",
    ),
    _broken(
        "other bytes under a known key are a redelivery",
        f"{_ACCEPTING}:_known",
        "same_bytes(draft, known, inbound.evidence, key)",
        "True",
        f"{_INBOUND}::other_bytes_under_a_known_key",
    ),
    _broken(
        "other bytes under a known key are kept again at each delivery",
        f"{_ACCEPTING}:_keep",
        "other == turn or same_bytes(draft, other, inbound.evidence)",
        "other == turn",
        f"{_INBOUND}::other_bytes_under_a_known_key",
    ),
    _broken(
        "what differs is kept twice by a commit of unknown fate",
        f"{_ACCEPTING}:_keep",
        "other == turn or same_bytes(draft, other, inbound.evidence)",
        "other != turn and same_bytes(draft, other, inbound.evidence)",
        f"{_INBOUND}::kept_once_by_a_commit",
    ),
    _broken(
        "a message whose bytes are erased differs from each that comes again",
        f"{_ACCEPTING}:same_bytes",
        "return True",
        "return False",
        f"{_INBOUND}::erased_message",
    ),
    _broken(
        "an update that cannot be read is dropped",
        "turnfold.api.sources:_Pull._read",
        "return self._unreadable(given, told(end.error))",
        "return None",
        f"{_INBOUND}::does_not_stop_its_source",
    ),
    _broken(
        "text of a class of its own keeps its methods",
        "turnfold.messages:check_text",
        "value = str.__str__(value)",
        "pass",
        f"{_RAISING}::no_call_of_a_kernel",
    ),
    _broken(
        "the error of a value comes out of the check of an argument",
        "turnfold.arguments:check",
        "raise unreadable(field, exc) from exc",
        "raise",
        f"{_RAISING}::refused_by_name",
    ),
    _broken(
        "the error of a value inside of a native body comes out",
        "turnfold.messages:Native.__attrs_post_init__",
        "raise unreadable('body', exc) from exc",
        "raise",
        f"{_RAISING}::refused_by_name",
    ),
    _broken(
        "the error of a time zone comes out",
        "turnfold.inbound:_ms_of",
        "raise unreadable('sent_at', exc) from exc",
        "raise",
        f"{_RAISING}::refused_by_name",
    ),
    _broken(
        "each start of a source without a cursor makes a new dead turn",
        "turnfold.api.sources:_named",
        "update.dedupe_key is not None",
        "True",
        f"{_INBOUND}::one_dead_turn_for_all_starts",
    ),
    _broken(
        "the same bytes at another cursor are no update",
        "turnfold.api.sources:_Pull._accept",
        "cursor is None",
        "True",
        f"{_INBOUND}::same_bytes_are_two_updates",
    ),
    _broken(
        "a source that broke once and is quiet fails for ever",
        "turnfold.api.sources:_Pull._is_steady",
        "_now() - self._started_at >= self._steady_s",
        "False",
        "test:fast/test_sources.py::is_well_again",
    ),
    _broken(
        "a source works as soon as it is started again",
        "turnfold.api.sources:_Pull._is_steady",
        "_now() - self._started_at >= self._steady_s",
        "True",
        "test:fast/test_sources.py::is_well_again",
    ),
    _broken(
        "a source that breaks by a timeout works in between",
        "turnfold.api.sources:steady_s",
        "max(_STEADY_S, 2 * silent)",
        "_STEADY_S",
        "test:fast/test_sources.py::not_well_in_between",
    ),
    _broken(
        "a source fills the store with dead turns as fast as it can",
        "turnfold.api.sources:_Pull._judge",
        "self._unread >= UNREAD_MOST",
        "False",
        "test:fast/test_sources.py::gets_a_pause",
    ),
    _broken(
        "what cannot be read shortens the pause of its source",
        "turnfold.api.sources:_Pull._judge",
        "dead is None",
        "self._unread < UNREAD_MOST",
        "test:fast/test_sources.py::gets_a_pause",
    ),
    _broken(
        "dead turns count though messages stand between them",
        "turnfold.api.sources:_Pull._judge",
        "self._unread = 0",
        "pass",
        "test:fast/test_sources.py::among_others",
    ),
    _broken(
        "a dead turn that still cannot be read is given up",
        "turnfold._state.turn:_moved",
        "turn.resubmitted = False",
        "pass",
        f"{_INBOUND}::read_again_after_a_repair",
    ),
    _broken(
        "a notice for an unknown conversation is queued",
        "turnfold._decide.outbox:_queue_notice",
        "if not turn.conversation:",
        "if False:",
        f"{_INBOUND}::run_of_a_dead_turn_that_fails",
    ),
    _broken(
        "an edit is not linked to the turn that it changes",
        f"{_ACCEPTING}:_changed",
        "None if original is None else draft.lookup(original)",
        "None",
        f"{_INBOUND}::linked_to_the_turn",
    ),
    _broken(
        "an edit finds no message that was accepted with a key",
        "turnfold._log.ids:original_key",
        "inbound.edits is not None",
        "False",
        f"{_INBOUND}::accepted_with_a_key",
    ),
    _broken(
        "a message that joined meanwhile is looked for under its first stream alone",
        "turnfold.api.client:Mailbox.differs",
        "stream = await self._holder(command.key or '')",
        "stream = None",
        "test:contract/test_busy.py::joins_between",
    ),
    _broken(
        "a reader that cancels the task of its source stops it at that update",
        "turnfold.api.sources:_Pull._take",
        "await own_cancels(asked)",
        "False",
        "test:contract/test_foreign_code.py::stops_a_gateway[read]",
    ),
    _broken(
        "the revision is no part of the key",
        "turnfold.inbound:_dedupe_key",
        "revision is None",
        "True",
        f"{_INBOUND}::linked_to_the_turn",
    ),
)

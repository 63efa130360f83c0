"""The mutants of lanes that are busy: joining, superseding, dropping, and a stop of a lane."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_BUSY = "turnfold._decide.busy"
_ACCEPTS = "turnfold._decide.accepting"
_RULES = "turnfold._decide.rules"
_TEST = "test:contract/test_busy.py"
_LIVE = "test:contract/test_live_stopped.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


BUSY: Final = (
    _broken(
        "a message joins a turn that has begun",
        f"{_RULES}:may_be_joined",
        "turn.phase is TurnPhase.ACCEPTED and not turn.run and not turn.held",
        "True",
        "crash:join",
    ),
    _broken(
        "a source ignores what it was told of a busy lane",
        "turnfold.api.sources:_Pull._accept",
        "how.busy",
        "'queue'",
        f"{_TEST}::a_source_says",
    ),
    _broken(
        "a source puts all messages into the lane of their place",
        "turnfold.api.sources:_in_lane",
        "evolve(inbound, lane=lane)",
        "inbound",
        f"{_TEST}::a_source_says",
    ),
    _broken(
        "messages without end join one turn",
        f"{_RULES}:may_be_joined",
        "len(turn.joined) + 1 < limit",
        "True",
        f"{_TEST}::no_more_than_a_lane_holds",
    ),
    _broken(
        "a message that joined has no key",
        f"{_ACCEPTS}:_planned",
        "_name(draft, host.stream, inbound)",
        "pass",
        f"{_TEST}::known_by_its_own_key",
    ),
    _broken(
        "a message without a key joins",
        f"{_BUSY}:host_of",
        "not turns or inbound_key(inbound) is None",
        "not turns",
        f"{_TEST}::nothing_tells_from_a_repeat",
    ),
    _broken(
        "a message that joined is compared with the first one of its turn",
        f"{_ACCEPTS}:same_bytes",
        "next(joined, turn.body)",
        "turn.body",
        f"{_TEST}::known_by_its_own_key",
    ),
    _broken(
        "a turn that waits for more begins at once",
        "turnfold._state.turn:_born",
        "turn.due = event.due",
        "pass",
        f"{_TEST}::fragments_are_waited_for",
    ),
    _broken(
        "a fragment does not make its turn wait longer",
        f"{_BUSY}:_later",
        "max(host.due, min(draft.now + debounce_ms, last))",
        "host.due",
        f"{_TEST}::fragments_are_waited_for",
    ),
    _broken(
        "fragments are waited for without end",
        f"{_BUSY}:_later",
        "max(host.due, min(draft.now + debounce_ms, last))",
        "draft.now + debounce_ms",
        f"{_TEST}::fragments_without_end",
    ),
    _broken(
        "a newer message supersedes nothing",
        f"{_ACCEPTS}:_planned",
        "stopped = busy.supersede(draft, inbound)",
        "pass",
        f"{_TEST}::supersedes_what_waits",
    ),
    _broken(
        "what is dropped is run",
        f"{_ACCEPTS}:_planned",
        "busy.drop(draft, turn)",
        "start_if_free(draft, turn)",
        f"{_TEST}::what_is_dropped",
    ),
    _broken(
        "control input is dropped",
        f"{_ACCEPTS}:accept",
        "inbound.control",
        "False",
        f"{_TEST}::never_dropped",
    ),
    _broken(
        "all authors share a lane",
        f"{_ACCEPTS}:_accepted",
        "inbound.lane",
        "inbound.route.lane",
        f"{_TEST}::for_each_author",
    ),
    _broken(
        "a stop of a lane stops more than it speaks of",
        f"{_BUSY}:abort_lane",
        "sort_of(turn, draft.now) in scope",
        "True",
        f"{_TEST}::what_it_speaks_of",
    ),
    _broken(
        "a stop of a lane reaches the answers of another one",
        f"{_BUSY}:_answered",
        "t.lane == lane and t.phase is TurnPhase.ANSWERED",
        "t.phase is TurnPhase.ANSWERED",
        f"{_TEST}::the_truth_about_answers",
    ),
    _broken(
        "what is in doubt is said to be too late",
        "turnfold._decide.operator:_word_for",
        "status in _UNSURE",
        "False",
        f"{_TEST}::in_one_word",
    ),
    _broken(
        "the notice of a stop does not wait for the preview under way",
        "turnfold._runtime.sender:Sender.last_words",
        "under_way is not None",
        "False",
        f"{_LIVE}::does_not_overwrite_the_notice",
    ),
    _broken(
        "a stop is told as a newer message",
        "turnfold._runtime.retract:said_of",
        "_STOPPED.get(event.reason, '')",
        "'superseded'",
        f"{_LIVE}::an_abort_says_so",
    ),
    _broken(
        "a notice that is refused leaves half an answer",
        "turnfold._runtime.retract:Retractor._take_back",
        "isinstance(outcome, Rejected)",
        "False",
        f"{_LIVE}::a_notice_that_is_refused",
    ),
    _broken(
        "a message that a placeholder announced counts as unannounced",
        "turnfold.audit.witness:Witness._placed",
        "self._announced.setdefault(key, (stream, position))",
        "pass",
        f"{_LIVE}::an_abort_says_so",
    ),
)

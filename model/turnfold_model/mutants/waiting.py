"""The mutants of waiting: gates, probes, the pace behind them, and the acts that end a
wait."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_PACE = "turnfold._runtime.flow:Pace"
_FLOW = "test:contract/test_flow.py"
_BROKEN = "test:contract/test_broken_adapter.py"
_CAPACITY = "test:contract/test_capacity.py"
_STALLS = "turnfold.api.stalls:Stalls"
_STILL = "test:contract/test_stalls.py"
_RATES = "test:contract/test_rates.py"
_ACTS = "test:contract/test_acts.py"
_OLD = "test:contract/test_entry_age.py"
_TURNS = "test:contract/test_behaviour_turns.py"
_WORDS = "test:contract/test_notice_words.py"
_AGE = "test:contract/test_age.py"
_PARTS = "test:contract/test_behaviour_parts.py"
_MANY = "test:contract/test_acts_on_many.py"
_OPERATOR = "turnfold._decide.operator"
_GATES = "turnfold._decide.gates"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "program", where, old, new, *killers)


_PLAIN = "test:contract/test_plain_handlers.py"
_FLIPS = "test:contract/test_flipped_rows.py"
_LARGE = "test:contract/test_large_payloads.py"


WAITING: Final = (
    _broken(
        "a turn is run again while the thread of its run lives",
        "turnfold.api.callbacks:Handlers._call",
        "stream not in self._unwanted",
        "False",
        f"{_PLAIN}::not_run_again_while",
    ),
    _broken(
        "an abort waits for the thread of a run",
        "turnfold.api.callbacks:Handlers._call",
        "stream not in self._unwanted",
        "True",
        f"{_PLAIN}::an_abort_ends",
    ),
    _broken(
        "nobody looks at the links between the records of a stream",
        "turnfold_adapters.stores.sqlite.reads:Reads.integrity",
        "[*links.problems(self.conn), *keys.problems(self.conn)]",
        "[*keys.problems(self.conn)]",
        f"{_FLIPS}::flipped_bit",
    ),
    _broken(
        "the payloads of one call have no limit",
        "turnfold.api.commands:Commands._check_size",
        "size > most",
        "False",
        f"{_LARGE}::have_a_limit",
    ),
    _broken(
        "a kernel cannot close while a plan hangs in a thread",
        "turnfold._runtime.driver:Driver._plan",
        "self._cut_off_here()",
        "contextlib.nullcontext()",
        f"{_LARGE}::a_plan_that_never_ends",
    ),
    _broken(
        "nobody is told of a plan that hangs in a thread",
        "turnfold._runtime.channel:AttachedChannel._plan_hangs",
        "self.hung_plans.add(entry)",
        "pass",
        f"{_LARGE}::a_plan_that_never_ends",
    ),
    _broken(
        "a large native payload is never checked",
        "turnfold._log.bodies:_packed_native",
        "json_value(payload.body, 'body')",
        "None",
        f"{_LARGE}::checked_later",
    ),
    _broken(
        "a large payload is digested on the loop",
        "turnfold._log.large:seal",
        "len(data) <= LARGE",
        "True",
        f"{_LARGE}::a_large_payload_does_not_stop",
        f"{_LARGE}::a_large_message_does_not_stop",
    ),
    _broken(
        "a large payload is planned on the loop",
        "turnfold.api.commands:Commands.intend",
        "large or is_large(plain)",
        "False",
        f"{_LARGE}::planned_in_a_thread",
    ),
    _broken(
        "a bug of an adapter for everything spends each message",
        "turnfold._decide.outcomes:settle",
        "isinstance(outcome, BuggyUnknown)",
        "False",
        f"{_BROKEN}::a_bug_for_everything",
    ),
    _broken(
        "a timeout of a client library is a bug of the adapter",
        "turnfold._runtime.network:_is_named",
        'names.get(str(one.__module__).partition(".")[0], ())',
        "()",
        f"{_BROKEN}::a_broken_connection",
    ),
    _broken(
        "a refusal that a client library raises is of the network",
        "turnfold._runtime.network:_is_5xx",
        "status >= 500",
        "status >= 400",
        f"{_BROKEN}::a_refusal_that",
    ),
    _broken(
        "a bug that comes up while a cut is handled is of the network",
        "turnfold._runtime.network:is_of_network",
        "chain(error, context=False)",
        "chain(error)",
        f"{_BROKEN}::a_bug_while_a_cut",
    ),
    _broken(
        "what waits for something else is never too old",
        "turnfold._decide.schedule:_in_age",
        "step.act is Act.WAIT and draft.now < old_at",
        "False",
        f"{_OLD}::behind_a_closed_gate",
    ),
    _broken(
        "the time in the inbox is not part of an entry's age",
        "turnfold._decide.outbox:queue",
        "intent.waited_ms",
        "0",
        f"{_OLD}::after_an_outage",
    ),
    _broken(
        "the time in the inbox is not part of a message's age",
        "turnfold._decide.accepting:_accepted",
        "waited_ms or 0",
        "0",
        "test:contract/test_age.py::that_lay_in_the_inbox",
    ),
    _broken(
        "a redrive does not renew the age",
        "turnfold._state.entry_fold:_moved",
        "_redriven(e, event, at)",
        "_redriven(e, event, e.since)",
        f"{_OLD}::a_person_may_send_it",
    ),
    _broken(
        "an entry expires though a person has just said that it shall be sent",
        "turnfold._decide.operator:resolve",
        "_renewed(draft, entry)",
        "None",
        f"{_OLD}::the_word_of_a_person_gives_new_time",
    ),
    _broken(
        "the limit of one account is that of all",
        "turnfold._runtime.policies:age_limit",
        "own is None",
        "True",
        f"{_OLD}::a_limit_of_its_own",
    ),
    _broken(
        "the reader of an answer that is too old is not told",
        "turnfold._decide.outbox:_notice_for",
        "entry.reason in _NOTICE",
        "entry.reason in _NOTICE and entry.reason != Reason.TOO_OLD",
        f"{_OLD}::the_reader",
    ),
    _broken(
        "control input waits for a place",
        "turnfold._decide.turns:_has_place",
        "flow is None or turn.control",
        "flow is None",
        f"{_TURNS}::control_input_needs_no_place",
    ),
    _broken(
        "a run is begun before it has a place",
        "turnfold._decide.rules:place_is_free",
        "places_taken(running) < limit",
        "True",
        f"{_TURNS}::control_input_needs_no_place",
    ),
    _broken(
        "a message looks at each other message of its commit for a place",
        "turnfold._decide.unit_of_work:UnitOfWork.running",
        "{*self.below.running(), *self._running}",
        "{*self.below.running(), *self.touched}",
        "test:contract/test_many_at_once.py::costs_the_same_however_many",
    ),
    _broken(
        "runs that begin in one commit do not count as runs",
        "turnfold._decide.unit_of_work:UnitOfWork.running",
        "{*self.below.running(), *self._running}",
        "{*self.below.running()}",
        "test:contract/test_many_at_once.py::no_more_runs_than_places",
    ),
    _broken(
        "a run of control input takes a place",
        "turnfold._decide.rules:places_taken",
        "not turn.control",
        "True",
        f"{_TURNS}::a_run_of_control_input_takes_no_place",
    ),
    _broken(
        "a turn that was stopped keeps its place in the line",
        "turnfold._runtime.flow:Flow.moved",
        "self.places.waiting",
        "False",
        f"{_TURNS}::stopped_while_they_wait",
    ),
    _broken(
        "nobody who waits for a place is told of one",
        "turnfold._runtime.driver:Driver._give_places",
        "places.waiting",
        "False",
        f"{_TURNS}::places_are_given",
    ),
    _broken(
        "a notice goes out in the default words where a locale has its own",
        "turnfold.notices:_of_locale",
        "name in known",
        "False",
        f"{_WORDS}::the_reader_s_locale",
    ),
    _broken(
        "words that break are no bug",
        "turnfold._runtime.words:Wording.ask",
        "self.bugs += 1",
        "pass",
        f"{_WORDS}::that_break",
    ),
    _broken(
        "an old turn ends where a person should be asked",
        "turnfold._decide.turns:_end_old",
        "draft.settings.old_turns is OldTurns.ASK",
        "False",
        f"{_AGE}::a_person_is_asked",
    ),
    _broken(
        "an old turn is held again after a person let it go on",
        "turnfold._decide.turns:_too_old",
        "limit is None or turn.run or turn.resubmitted or turn.passed",
        "limit is None or turn.run or turn.resubmitted",
        f"{_AGE}::a_person_is_asked",
    ),
    _broken(
        "a channel that is detached before a plan ends the entry",
        "turnfold._decide.outcomes:refuse_plan",
        "not RULES[outcome.failure].counts",
        "False",
        f"{_PARTS}::is_detached_before",
    ),
    _broken(
        "a notice that has not gone out is sent beside later news",
        "turnfold._decide.outbox:_queue_notice",
        "_withdraw_notices(draft, turn, AbortReason.SUPERSEDED)",
        "pass",
        f"{_WORDS}::later_news",
    ),
    _broken(
        "what was told is told again",
        "turnfold._decide.rules:notice_is_unsaid",
        "told.phase is Phase.ABORTED or (counted and waits)",
        "True",
        f"{_WORDS}::is_told_once",
    ),
    _broken(
        "a bug in prepare spends the budget of each message",
        "turnfold._decide.outcomes:_rejected",
        "isinstance(outcome, BuggyRejected) and breaks(draft, entry)",
        "False",
        f"{_BROKEN}::a_bug_for_everything",
    ),
    _broken(
        "one message that an adapter breaks on closes its account",
        "turnfold._runtime.flow:Flow._in_a_row",
        "len(names) >= _SEVERAL",
        "True",
        f"{_BROKEN}::one_message_that_breaks",
    ),
    _broken(
        "a gate that opens lets all lanes through at once",
        "turnfold._runtime.flow:Pace.open",
        "not self.interval and len(self.waiting) > _HERD",
        "False",
        f"{_FLOW}::growing_pace",
    ),
    _broken(
        "a ramp without an answer never ends",
        "turnfold._runtime.flow:Pace._take",
        "now >= self.next_at",
        "False",
        f"{_FLOW}::ramp_without_an_answer",
    ),
    _broken(
        "an account that was said to be offline is never tried",
        "turnfold._decide.gates:disconnected",
        "now + max(draft.settings.auth_probe_ms, _SHORTEST_MS)",
        "None",
        f"{_FLOW}::said_to_be_offline",
    ),
    _broken(
        "behind a gate whose time is over every lane goes at once",
        f"{_PACE}.ask",
        "self.half_open",
        "False",
        f"{_FLOW}::one_probe_each_interval",
    ),
    _broken(
        "a new worker waits for a token that was renewed long ago",
        "turnfold._decide.gates:gates_to_probe",
        "gate.holds(draft.now)",
        "False",
        f"{_FLOW}::after_the_token_was_renewed",
    ),
    _broken(
        "a new worker does not keep the wait that a platform asked for",
        "turnfold._decide.gates:gates_to_probe",
        "gate.reason != FailureClass.RATE_LIMITED",
        "True",
        f"{_FLOW}::keeps_its_wait_over_a_restart",
    ),
    _broken(
        "each lane of a failing account waits for itself",
        f"{_GATES}:passing",
        "flow is not None and flow.fails(entry.lane)",
        "False",
        f"{_FLOW}::is_one_gate",
    ),
    _broken(
        "the wait of a part whose failure passes does not grow",
        f"{_GATES}:passing",
        "entry.backoffs + 1",
        "1",
        f"{_FLOW}::costs_a_part_nothing",
    ),
    _broken(
        "each call that comes back prolongs the gate of a failing account",
        f"{_GATES}:_close",
        "gate.reason == outcome.failure and outcome.retry_after_ms is None",
        "False",
        f"{_FLOW}::do_not_prolong_it",
    ),
    _broken(
        "a look-up that nobody answered is counted",
        "turnfold._decide.outcomes:_cannot_tell",
        "not RULES[said.failure].counts",
        "False",
        f"{_FLOW}::failing_look_ups",
    ),
    _broken(
        "behind a gate whose time is over every look-up goes at once",
        "turnfold._decide.schedule:_in_turn",
        "flow is None or not flow.knows",
        "flow is None or not flow.knows or act is Act.LOOK_UP",
        f"{_FLOW}::failing_look_ups",
    ),
    _broken(
        "the wait of a failing account does not grow",
        f"{_PACE}.closed",
        "self.refused += 1",
        "pass",
        f"{_FLOW}::its_wait_grows",
    ),
    _broken(
        "an account that delivers fails all the same",
        "turnfold._runtime.flow:Flow._works",
        "entry.phase is Phase.DELIVERED",
        "False",
        f"{_FLOW}::between_deliveries",
    ),
    _broken(
        "two lanes that fail are a failing account",
        "turnfold._runtime.flow:Flow._in_a_row",
        "len(names) >= _SEVERAL",
        "len(names) >= 2",
        f"{_FLOW}::two_lanes_that_fail",
    ),
    _broken(
        "after a restart a failing account is forgotten by its probe",
        "turnfold._runtime.flow:Flow._in_a_row",
        "pace is not None and pace.half_open",
        "False",
        f"{_FLOW}::still_fails",
    ),
    _broken(
        "what waits of one account stops another",
        "turnfold._decide.outbox:_check_room",
        "draft.open_of(account)",
        "draft.open_count",
        f"{_CAPACITY}::does_not_stop_another",
    ),
    _broken(
        "a limit makes a handler run again",
        "turnfold._decide.outbox:enqueue",
        "intent.turn is None and not intent.promised",
        "not intent.promised",
        f"{_CAPACITY}::makes_a_handler_run_again",
    ),
    _broken(
        "a lane takes any number of messages",
        "turnfold._decide.accepting:_check_room",
        "waiting >= limit",
        "False",
        f"{_CAPACITY}::takes_so_many_messages",
    ),
    _broken(
        "control input waits for room in its lane",
        "turnfold._decide.accepting:_check_room",
        "inbound.control",
        "False",
        f"{_CAPACITY}::takes_so_many_messages",
    ),
    _broken(
        "one payload becomes any number of messages",
        "turnfold._decide.plan:make_plan",
        "most is not None and len(parts) + len(pieces) > most",
        "False",
        f"{_CAPACITY}::only_so_many_messages",
    ),
    _broken(
        "each entry learns anew that its conversation has moved",
        "turnfold._decide.schedule:attempt",
        "entry.target or _moved_to(draft, entry)",
        "entry.target",
        f"{_CAPACITY}::learnt_once",
    ),
    _broken(
        "a stop costs the part in flight a unit",
        "turnfold._state.entry_fold:_moved",
        "e.used = e.used - (event.cause in _FREE)",
        "pass",
        f"{_CAPACITY}::a_stop_costs",
    ),
    _broken(
        "an error that says when to come back counts as a failure",
        "turnfold.api.callbacks:_asked_wait_ms",
        "",
        "return None",
        f"{_CAPACITY}::when_to_come_back",
    ),
    _broken(
        "a lane that stands still is told again and again",
        f"{_STALLS}._look_at",
        "not head.told",
        "True",
        f"{_STILL}::told_once",
    ),
    _broken(
        "a lane that moves stands still",
        f"{_STALLS}._look_at",
        "head is None or (head.entry, head.part) != (entry.stream, entry.part)",
        "head is None",
        f"{_STILL}::that_moves",
    ),
    _broken(
        "each refused probe makes a gate young again",
        f"{_PACE}.closed",
        "self.since is None or not self.half_open",
        "True",
        f"{_STILL}::its_age",
    ),
    _broken(
        "success makes an account faster than was declared",
        f"{_PACE}._faster",
        "max(self.interval, self.least)",
        "self.interval",
        f"{_RATES}::nothing_faster",
    ),
    _broken(
        "the rate of a conversation is that of its account",
        "turnfold._runtime.flow:Flow._declared",
        "rate.conversation",
        "rate.account",
        f"{_RATES}::rate_of_its_own",
    ),
    _broken(
        "a channel that is attached opens the gates of others",
        f"{_GATES}:probe_gates",
        "only is not None and gate.stream != only",
        "False",
        f"{_FLOW}::when_its_channel_is_attached",
    ),
    _broken(
        "a retry sends what may have arrived",
        f"{_OPERATOR}:retry",
        "problem = 'it may have arrived; resolve it'",
        "return 'redriven'",
        f"{_ACTS}::a_retry_of_doubt_is_refused",
    ),
    _broken(
        "an embedder opens what a person holds back",
        f"{_GATES}:connected",
        "by is None and rules.held_by_a_person(gate, draft.now)",
        "False",
        f"{_MANY}::no_reconnection",
    ),
    _broken(
        "a disconnection takes a gate from a person",
        f"{_GATES}:disconnected",
        "rules.held_by_a_person(gate, draft.now)",
        "False",
        f"{_MANY}::a_disconnection_does_not",
    ),
    _broken(
        "a failure takes a gate from a person",
        f"{_GATES}:_close",
        "rules.held_by_a_person(gate, draft.now)",
        "False",
        f"{_MANY}::a_failure_does_not_move",
    ),
    _broken(
        "a new worker tries what a person holds back",
        f"{_GATES}:gates_to_probe",
        "not rules.held_by_a_person(gate, draft.now)",
        "True",
        f"{_MANY}::no_new_worker",
    ),
    _broken(
        "an act of another process forgets what was seen",
        "turnfold._decide.inbox:_operated",
        "data.pop('seen', None)",
        "data.pop('seen', None) and None",
        f"{_MANY}::carries_what_was_seen",
    ),
    _broken(
        "an abort of another process forgets what was seen",
        "turnfold._decide.inbox:_abort",
        "data.get('seen')",
        "None",
        f"{_MANY}::carries_what_was_seen",
    ),
    _broken(
        "an act does not say why",
        f"{_OPERATOR}:redrive",
        "draft.text(stream, why)",
        "None",
        f"{_ACTS}::the_log_says_who",
    ),
)

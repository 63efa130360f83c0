"""The mutants of the decisions and of the programs.

Guards, recovery and store have their own files; MUTANTS are all of them. A mutant names
the checkers that notice it. `python -m turnfold_model mutants` runs them; a mutant that
no longer fits the code is an error, not a pass.
"""

from typing import Final

from turnfold_model.mutants.blame import BLAME
from turnfold_model.mutants.busy import BUSY
from turnfold_model.mutants.channels import CHANNELS
from turnfold_model.mutants.code import Edit, Mutant, one
from turnfold_model.mutants.dashboard import DASHBOARD
from turnfold_model.mutants.editing import EDITING
from turnfold_model.mutants.guards import GUARDS
from turnfold_model.mutants.importing import IMPORTING
from turnfold_model.mutants.inbound import INBOUND
from turnfold_model.mutants.keeping import KEEPING
from turnfold_model.mutants.later import LATER
from turnfold_model.mutants.limits import LIMITS
from turnfold_model.mutants.owning import OWNING
from turnfold_model.mutants.pacing import PACING
from turnfold_model.mutants.parts import PARTS
from turnfold_model.mutants.plugins import PLUGINS
from turnfold_model.mutants.recovery import RECOVERY
from turnfold_model.mutants.sending import SENDING
from turnfold_model.mutants.several_hosts import HOSTS
from turnfold_model.mutants.shards import SHARDS
from turnfold_model.mutants.sql import SQL
from turnfold_model.mutants.stops import STOPS
from turnfold_model.mutants.store import STORE
from turnfold_model.mutants.telling import TELLING
from turnfold_model.mutants.waiting import WAITING
from turnfold_model.mutants.watching import WATCHING

_D = "turnfold._decide"
_P = "turnfold._runtime.programs"
_DOUBT = "test:contract/test_behaviour_doubt.py"
_FAULTS = "test:contract/test_behaviour_faults.py"
_OPERATORS = "test:contract/test_behaviour_operators.py"
_TURNS = "test:contract/test_behaviour_turns.py"
_WAITING = "test:contract/test_behaviour_waiting.py"


_SENT_FIRST = """if step.act is Act.ATTEMPT:
    first = AttemptRef(step.entry, 0, 1, name)
    outcome = yield Send(first)
    yield from _DOES[step.act](step.entry)
    yield from _record(first, outcome)
    continue
yield from _DOES[step.act](step.entry)"""

PROGRAMS: Final = (
    Mutant(
        "no write-ahead: the part is sent, then its attempt is logged",
        "program",
        (
            Edit(f"{_D}.schedule:attempt_if_free", "", "return"),
            Edit(
                f"{_D}.schedule:attempt_now",
                "attempt_if_free(draft, draft.entry(stream).lane)",
                "attempt(draft, stream)",
            ),
            Edit(f"{_D}.unit_of_work:UnitOfWork.hand_out", "", "return"),
            Edit(
                f"{_P}:lane",
                "yield from _DOES[step.act](step.entry)",
                _SENT_FIRST,
            ),
        ),
        ("crash:one",),
        world="write_ahead",
    ),
    one(
        "an outcome is dropped when the store cannot take it",
        "program",
        f"{_P}:append_until_stored",
        "yield from back_off(exc, 'outcome')",
        "return None",
        "crash:store-lookup",
    ),
    one(
        "an abort before the dispatch does not stop the send",
        "program",
        f"{_P}:_prepare",
        "yield from append_until_stored(_of(attempt, outcomes.withdraw))",
        "yield from send(attempt)",
        "crash:abort-prepare",
    ),
    one(
        "a refused prepare is followed by the send",
        "program",
        f"{_P}:_prepare",
        "if isinstance(ready, Rejected):",
        "if False:",
        "crash:prepare-fault",
    ),
    one(
        "the part is sent twice in a row",
        "program",
        f"{_P}:send",
        "yield Send(attempt)",
        "((yield Send(attempt)), (yield Send(attempt)))[1]",
        "crash:blind-hold",
    ),
    one(
        "an attempt that no commit has handed out is not looked for",
        "program",
        f"{_P}:lane",
        "yield TakeUp(attempt)",
        "pass",
        "crash:store",
        f"{_FAULTS}::an_attempt_of_a_commit",
    ),
    one(
        "a look that a store cannot answer now breaks its program",
        "program",
        f"{_P}:_answered",
        "yield from back_off(exc, where)",
        "raise",
        "test:fast/test_looks.py::away",
    ),
    one(
        "a lane goes on looking where another process owns the store",
        "program",
        f"{_P}:_answered",
        "(CorruptLogError, OwnedError)",
        "CorruptLogError",
        "test:fast/test_looks.py::another_process",
    ),
    one(
        "a lane waits for an attempt that is over",
        "program",
        "turnfold._runtime.sender:Register.moved",
        "",
        "return",
        "crash:two-faults",
    ),
    one(
        "the lane of a turn is never looked at after a commit",
        "program",
        "turnfold._runtime.scheduler:_turn",
        "book.turns_waiting(turn.lane) > ours",
        "False",
        "crash:two",
    ),
    one(
        "a reply of an earlier process counts as new",
        "decision",
        "turnfold._runtime.open_streams:OpenStreams.lacks",
        "(entry,)",
        "()",
        "test:fast/test_turn_reads.py::not_known",
    ),
    one(
        "a lane is never looked at after a commit",
        "program",
        "turnfold._runtime.scheduler:after",
        "register.speaks_for(lane) is None",
        "False",
        "crash:prepare",
    ),
    one(
        "the end of a run is not recorded",
        "program",
        f"{_P}:run",
        "yield from append_until_stored(_ending(end, turn, number))",
        "pass",
        "crash:speechless",
    ),
)
DECISIONS: Final = (
    one(
        "a deferral in doubt costs a unit and the word that allowed it",
        "decision",
        f"{_D}.outcomes:_rejected",
        "not rule.counts",
        "not rule.counts and rules.no_doubt(entry)",
        f"{_DOUBT}::a_deferral_costs_nothing",
    ),
    one(
        "an entry with nothing left to send stays open",
        "decision",
        f"{_D}.outcomes:_go_on",
        "entry.phase is QUEUED and entry.part >= entry.count",
        "False",
        "test:contract/test_behaviour_parts.py::the_commit_of_its_last_part",
    ),
    one(
        "a timeout counts as a failure",
        "decision",
        f"{_D}.outcomes:settle",
        "_unknown(draft, entry, outcome.cause, outcome.detail)",
        "_retry(draft, entry, FailureClass.CANCELLED)",
        "crash:blind-fault",
        "crash:lookup-fault",
        world="timeout",
    ),
    one(
        "doubt is forgotten when the next attempt is refused",
        "decision",
        f"{_D}.outcomes:_rejected",
        "if not rules.no_doubt(entry):",
        "if False:",
        "crash:keyed-two-faults",
        world="doubt",
    ),
    one(
        "what may have arrived is called undelivered",
        "decision",
        f"{_D}.outcomes:fail_entry",
        "if not rules.no_doubt(entry):",
        "if False:",
        "crash:expiry",
        world="honesty",
    ),
    one(
        "a look-up too early proves absence",
        "decision",
        f"{_D}.outcomes:look_up",
        "rules.absence_proven(unsettled_ms)",
        "True",
        "crash:lookup",
    ),
    one(
        "a doubtful part is sent again whatever the policy says",
        "decision",
        f"{_D}.outcomes:settle_doubt",
        "policy is BlindPolicy.HOLD",
        "False",
        "crash:blind-hold",
        world="blind",
    ),
    one(
        "late evidence is dropped",
        "decision",
        f"{_D}.outcomes:_late",
        "",
        "return False",
        "stateful",
    ),
    one(
        "a deferral spends a unit of the budget",
        "decision",
        f"{_D}.outcomes:_rejected",
        "not rule.counts",
        "False",
        f"{_WAITING}::a_deferral_never",
    ),
    one(
        "the first of several parts counts as the last",
        "decision",
        "turnfold._state.entry:Entry.last",
        "",
        "return True",
        "crash:keyed",
        world="parts",
    ),
    one(
        "an illegal transition is made all the same",
        "decision",
        "turnfold._state.transitions:targets",
        "",
        "return frozenset(table)",
        "test:fast/test_entry_machine.py",
    ),
    one(
        "early finalisation: a turn ends while a reply is owed",
        "decision",
        f"{_D}.outbox:conclude",
        "any(e.phase not in CLOSED for e in finals)",
        "False",
        "crash:one",
        world="owed",
    ),
    one(
        "the end of a reply does not end its turn",
        "decision",
        f"{_D}.outbox:after_close",
        "conclude(draft, turn.stream)",
        "pass",
        "crash:one",
    ),
    one(
        "a reply of which some parts arrived counts as whole",
        "decision",
        f"{_D}.outbox:outcome_of",
        "return TurnOutcome.PARTIALLY_REPLIED",
        "return TurnOutcome.REPLIED",
        "crash:abort-lookup",
    ),
    one(
        "a parked head never lets its lane go on",
        "decision",
        f"{_D}.outbox:let_pass",
        "",
        "return",
        "crash:hold-two",
    ),
    one(
        "a reply that was stopped half way stays one though its part has bounced",
        "decision",
        f"{_D}.outbox:amend",
        "outcome is turn.outcome",
        "True",
        _TURNS,
    ),
    one(
        "an aborted reply leaves the rest of its turn going",
        "decision",
        f"{_D}.outbox:_stop_the_rest",
        "",
        "return",
        "crash:abort-reply",
    ),
    one(
        "an abort is ignored while a part is in flight",
        "decision",
        f"{_D}.operator:_stop",
        "after = draft.emit(stream, o.AbortRequested(reason=reason, by=by, why=told))",
        "return",
        "crash:abort",
    ),
    one(
        "an aborted turn leaves its entries going",
        "decision",
        f"{_D}.operator:_cascade",
        "",
        "return",
        "crash:abort",
    ),
    one(
        "no dedupe: the key of a message is not kept",
        "decision",
        f"{_D}.accepting:_new",
        "draft.key(key, turn)",
        "pass",
        "crash:one",
    ),
    one(
        "a message whose commit landed unseen is not new to its caller",
        "decision",
        f"{_D}.accepting:_known",
        "known == turn",
        "False",
        f"{_FAULTS}::a_commit_that_landed",
    ),
    one(
        "a cursor does not move",
        "decision",
        f"{_D}.accepting:advance",
        "",
        "return",
        "test:contract/test_behaviour_accept.py::a_cursor_moves",
    ),
    one(
        "the key of an enqueue is not kept",
        "decision",
        f"{_D}.outbox:enqueue",
        "draft.key(outbound_key(intent.key), intent.entry)",
        "pass",
        "crash:client",
    ),
    one(
        "the reply is queued in one commit, answered in the next",
        "decision",
        f"{_D}.turns:reply",
        "if rules.not_answered(turn):",
        "if draft.find_entry(intent.entry) is None:",
        "crash:one",
        world="one_commit",
    ),
    one(
        "an older run's blocks stay queued",
        "decision",
        f"{_D}.turns:_drop_unsent",
        "",
        "return",
        "crash:stale-blocks",
    ),
    one(
        "two turns of a lane run at a time",
        "decision",
        f"{_D}.turns:next_turn",
        "return turn_step(draft, turn)",
        "if turn_step(draft, turn).act is not TurnAct.WAIT:\n"
        "    return turn_step(draft, turn)\n"
        "continue",
        "crash:two",
    ),
    one(
        "a step that is done is done again",
        "decision",
        f"{_D}.turns:begin_step",
        "if known.get(key) is not None:",
        "if False:",
        f"{_TURNS}::a_step_is_done_once",
    ),
    one(
        "a lane does not wait for its head",
        "decision",
        f"{_D}.unit_of_work:UnitOfWork.front",
        "if not now.yielded:",
        "if False:",
        "crash:two-faults",
        world="lane",
    ),
    one(
        "closed gates are ignored",
        "decision",
        f"{_D}.schedule:_unless_gated",
        "held = True",
        "pass",
        f"{_WAITING}::connected_opens",
        "stateful",
    ),
    one(
        "a shorter limit opens a longer gate",
        "decision",
        f"{_D}.gates:_longer",
        "",
        "return False",
        f"{_WAITING}::a_longer_gate",
    ),
    one(
        "a dispatch does not ask for an abort",
        "decision",
        f"{_D}.schedule:dispatch",
        "not rules.not_aborted(entry)",
        "False",
        "crash:abort-prepare",
    ),
    one(
        "a dispatch loses the answer of prepare()",
        "decision",
        f"{_D}.schedule:dispatch",
        "draft.hand_out(entry, prepared)",
        "draft.hand_out(entry)",
        "crash:prepare",
    ),
    one(
        "a dispatch does not look at the clock",
        "decision",
        f"{_D}.schedule:dispatch",
        "not rules.not_expired(entry, draft.now)",
        "False",
        "crash:expires-in-prepare",
    ),
    one(
        "a dead letter in doubt is sent again without a word for it",
        "decision",
        f"{_D}.operator:redrive",
        "entry.doubtful or entry.reason == Reason.OUTCOME_UNKNOWN",
        "False",
        f"{_OPERATORS}::a_doubtful_dead_letter",
        world="consent",
    ),
    one(
        "what failed as unknown is sent again without a word for it",
        "decision",
        f"{_D}.operator:redrive",
        "entry.reason == Reason.OUTCOME_UNKNOWN",
        "False",
        f"{_OPERATORS}::a_dead_letter_whose_doubt",
    ),
    one(
        "a failed turn is run again more than once",
        "decision",
        f"{_D}.operator:resubmit",
        "if turn.resubmitted:",
        "if False:",
        f"{_OPERATORS}::a_turn_that_fails_again",
    ),
    one(
        "a stale worker may still write",
        "decision",
        f"{_D}.unit_of_work:UnitOfWork.fence",
        "if self.fence_lost:",
        "if False:",
        "test:fast/test_stale_worker.py::a_new_attempt",
    ),
)
MUTANTS: Final = (
    *GUARDS,
    *PROGRAMS,
    *DECISIONS,
    *RECOVERY,
    *OWNING,
    *WAITING,
    *LIMITS,
    *PACING,
    *PARTS,
    *PLUGINS,
    *INBOUND,
    *IMPORTING,
    *CHANNELS,
    *BLAME,
    *TELLING,
    *EDITING,
    *SENDING,
    *BUSY,
    *LATER,
    *SHARDS,
    *SQL,
    *HOSTS,
    *STOPS,
    *WATCHING,
    *STORE,
    *KEEPING,
    *DASHBOARD,
)

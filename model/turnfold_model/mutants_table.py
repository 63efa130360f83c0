"""The mutants: each guard taken out (mutants_guards), each promise of a program broken.

A mutant names the checkers that must kill it, cheapest first. `python -m turnfold_model
mutants` runs them; a mutant that no longer fits the source is an error, not a pass.
"""

from typing import Final

from turnfold_model.mutants_code import Edit, Mutant, one
from turnfold_model.mutants_guards import GUARDS

_D = "turnfold.decide"
_P = "turnfold.programs"
_S = "turnfold_adapters.stores"


_SENT_FIRST = """if step.act is Act.ATTEMPT:
                leg = yield Look(partial(leg_of, stream=step.entry))
                outcome = yield Send(leg)
                yield from _DOES[step.act](step.entry)
                leg = yield Look(partial(leg_of, stream=step.entry))
                yield from _record(leg, outcome)
                continue
            yield from _DOES[step.act](step.entry)"""

PROGRAMS: Final = (
    Mutant(
        "no write-ahead: the part is sent, then its attempt is logged",
        "program",
        (
            Edit(f"{_D}.attempting:attempt_if_free", "", "return"),
            Edit(
                f"{_D}.attempting:attempt_now",
                "attempt_if_free(draft, draft.entry(stream).lane)",
                "attempt(draft, stream)",
            ),
            Edit(
                f"{_P}.entries:lane",
                "yield from _DOES[step.act](step.entry)",
                _SENT_FIRST,
            ),
        ),
        ("crash:one",),
    ),
    one(
        "an outcome is dropped when the store cannot take it",
        "program",
        f"{_P}.patience:insist",
        'yield from rest(exc, "outcome")',
        "return None",
        "crash:store-lookup",
    ),
    one(
        "an abort before the dispatch does not stop the send",
        "program",
        f"{_P}.entries:_carry",
        "if not (yield from insist(_at(leg, attempting.dispatch))):",
        "if (yield from insist(_at(leg, attempting.dispatch))) is None:",
        "crash:abort-prepare",
    ),
    one(
        "a refused prepare is followed by the send",
        "program",
        f"{_P}.entries:_carry",
        "yield from _record(leg, ready)\n            return",
        "ready = Prepared()",
        "crash:prepare-fault",
    ),
    one(
        "the part is sent twice in a row",
        "program",
        f"{_P}.entries:_carry",
        "outcome: Outcome = yield Send(leg, prepared.value)",
        "outcome = yield Send(leg, prepared.value)\n"
        "    outcome = yield Send(leg, prepared.value)",
        "crash:blind-hold",
    ),
    one(
        "the end of a run is not recorded",
        "program",
        f"{_P}.turns:run",
        "yield from insist(_ending(end, turn, number))",
        "yield from ()",
        "crash:speechless",
    ),
)
DECISIONS: Final = (
    one(
        "a timeout counts as a failure",
        "decision",
        f"{_D}.settling:settle",
        "_unknown(draft, entry, outcome.cause, outcome.detail)",
        "_retry(draft, entry, FailureClass.TRANSIENT)",
        "crash:blind-fault",
        "crash:lookup-fault",
    ),
    one(
        "doubt is forgotten when the next attempt is refused",
        "decision",
        f"{_D}.settling:_rejected",
        "if not guards.no_doubt(entry):",
        "if False:",
        "crash:keyed-two-faults",
    ),
    one(
        "what may have arrived is called undelivered",
        "decision",
        f"{_D}.settling:fail_entry",
        "if not guards.no_doubt(entry):",
        "if False:",
        "crash:expiry",
    ),
    one(
        "a look-up too early proves absence",
        "decision",
        f"{_D}.settling:look_up",
        "case Absent() if guards.absence_proven(unsettled_ms):",
        "case Absent() if unsettled_ms >= 0:",
        "crash:lookup",
    ),
    one(
        "a doubtful part is sent again whatever the policy says",
        "decision",
        f"{_D}.settling:settle_doubt",
        "elif policy is BlindPolicy.HOLD:",
        "elif False:",
        "crash:blind-hold",
    ),
    one(
        "late evidence is dropped",
        "decision",
        f"{_D}.settling:_late",
        "",
        "return False",
        "stateful",
    ),
    one(
        "early finalisation: a turn ends while a reply is owed",
        "decision",
        f"{_D}.closing:conclude",
        "or any(e.open for e in finals)",
        "",
        "crash:one",
    ),
    one(
        "the end of a reply does not end its turn",
        "decision",
        f"{_D}.closing:after_close",
        "conclude(draft, turn.stream)",
        "pass",
        "crash:one",
    ),
    one(
        "a parked head never lets its lane go on",
        "decision",
        f"{_D}.closing:let_pass",
        "",
        "return",
        "crash:hold-two",
    ),
    one(
        "an aborted reply leaves the rest of its turn going",
        "decision",
        f"{_D}.closing:_stop_the_rest",
        "",
        "return",
        "crash:abort-reply",
    ),
    one(
        "an abort is ignored while a part is in flight",
        "decision",
        f"{_D}.aborting:_stop",
        "after = draft.emit(stream, o.AbortRequested(reason=reason, by=by))",
        "return",
        "crash:abort",
    ),
    one(
        "an aborted turn leaves its entries going",
        "decision",
        f"{_D}.aborting:_cascade",
        "",
        "return",
        "crash:abort",
    ),
    one(
        "no dedupe: the key of a message is not kept",
        "decision",
        f"{_D}.accepting:accept",
        "draft.key(key, turn)",
        "pass",
        "crash:one",
    ),
    one(
        "the key of an enqueue is not kept",
        "decision",
        f"{_D}.enqueuing:enqueue",
        "draft.key(outbound_key(intent.key), intent.entry)",
        "pass",
        "stateful",
    ),
    one(
        "the reply is queued in one commit, answered in the next",
        "decision",
        f"{_D}.running:reply",
        "if guards.not_answered(turn):",
        "if draft.find_entry(intent.entry) is None:",
        "crash:one",
    ),
    one(
        "an older run's blocks stay queued",
        "decision",
        f"{_D}.running:_drop_unsent",
        "",
        "return",
        "crash:stale-blocks",
    ),
    one(
        "two turns of a lane run at a time",
        "decision",
        f"{_D}.running:next_turn",
        "return turn_step(draft, turn)",
        "if turn_step(draft, turn).act is not TurnAct.WAIT:\n"
        "            return turn_step(draft, turn)",
        "crash:two",
    ),
    one(
        "a lane does not wait for its head",
        "decision",
        f"{_D}.attempting:_front",
        "if not entry.yielded:",
        "if False:",
        "crash:two-faults",
    ),
    one(
        "closed gates are ignored",
        "decision",
        f"{_D}.attempting:_unless_gated",
        "held = True",
        "pass",
        "stateful",
    ),
    one(
        "a dispatch does not ask for an abort",
        "decision",
        f"{_D}.attempting:dispatch",
        "not guards.not_aborted(entry) or",
        "",
        "crash:abort-prepare",
    ),
    one(
        "a dispatch does not look at the clock",
        "decision",
        f"{_D}.attempting:dispatch",
        "or not guards.not_expired(entry, draft.now)",
        "",
        "crash:expires-in-prepare",
    ),
    one(
        "a stale worker may still write",
        "decision",
        f"{_D}.draft:Draft.fence",
        "if self.fence_lost:",
        "if False:",
        "crash:zombie",
    ),
)
RECOVERY: Final = (
    one(
        "blind retry: what a dead process had on the wire was never sent",
        "recovery",
        f"{_D}.settling:recover",
        "if entry.phase is Phase.D:",
        "if False:",
        "crash:blind-hold",
        "crash:lookup",
    ),
    one(
        "nothing is taken up at the start",
        "recovery",
        "turnfold.drivers.agenda:at_start",
        "for lane in book.lanes():",
        "for lane in ():",
        "crash:one",
    ),
    one(
        "orphans are not looked for",
        "recovery",
        "turnfold.drivers.agenda:at_start",
        "for lane in book.turn_lanes():",
        "for lane in ():",
        "crash:one",
    ),
    one(
        "the next worker keeps the epoch of the last",
        "recovery",
        "turnfold_model.crash.process:Process.next_epoch",
        "state.epoch + 1",
        "max(1, state.epoch)",
        "crash:blind-hold",
    ),
    one(
        "a commit of unknown fate counts as done",
        "recovery",
        "turnfold.journal:Journal._after_unknown_fate",
        "",
        "self.store.reopen()\nreturn Commit([Decided() for _ in decisions])",
        "crash:store",
    ),
    one(
        "a store in doubt is not read again by the poll",
        "recovery",
        "turnfold.journal:Journal.refresh",
        "if self._lost:",
        "if False:",
        "crash:store-twice",
    ),
    one(
        "what others wrote is not read before deciding",
        "recovery",
        "turnfold.journal:Journal._transact",
        "self._news.update(self.book.catch_up(tx))",
        "pass",
        "crash:client",
    ),
)
STORE: Final = (
    Mutant(
        "two workers may have one store",
        "store",
        (
            Edit(
                f"{_S}.ownership:FileOwnership._lock",
                "if _key_of(self._file) in _registry.open:",
                "if False:",
            ),
            Edit(
                f"{_S}.ownership:FileOwnership._lock",
                "if key in _registry.open:",
                "if False:",
            ),
        ),
        ("store",),
    ),
    one(
        "bodies are not written",
        "store",
        f"{_S}.sqlite_tx:SqliteTx._write",
        "if self._bodies:",
        "if False:",
        "store",
    ),
    one(
        "synchronous is NORMAL",
        "store",
        f"{_S}.sqlite_connection:_require_synchronous",
        "",
        'conn.pragma("synchronous", "NORMAL")\nreturn',
        "power:blind",
    ),
    one(
        "no conflict check",
        "store",
        f"{_S}.checking:advance",
        "if record.version != actual + 1:",
        "if False:",
        "store",
    ),
    one(
        "a dedupe key may be taken twice",
        "store",
        f"{_S}.sqlite_tx:SqliteTx._check_keys",
        "if holder is not None:",
        "if False:",
        "store",
    ),
    one(
        "a failed commit counts as surely not stored",
        "store",
        f"{_S}.sqlite:SqliteStore._commit",
        "except (apsw.BusyError, apsw.FullError) as exc:",
        "except (apsw.BusyError, apsw.FullError, apsw.IOError) as exc:",
        "refused",
    ),
    one(
        "the journal mode is not asked for",
        "store",
        f"{_S}.sqlite_connection:_require_wal",
        "",
        "return",
        "store",
    ),
)
MUTANTS: Final = (*GUARDS, *PROGRAMS, *DECISIONS, *RECOVERY, *STORE)

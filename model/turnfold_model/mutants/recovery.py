"""The mutants of recovery and of the parts around the kernel's core: the journal, the
calls to channels, the worker's seat, the mark beside the store."""

from typing import Final

from turnfold_model.mutants import clocks
from turnfold_model.mutants.code import Mutant, one

_SENDER = "turnfold._runtime.sender:Sender"
_GROUP = "turnfold._runtime.group_commit:GroupCommit"
_FLUSHING = "test:contract/test_group_commit.py"
_STALE = "test:fast/test_stale_worker.py"
_JOURNAL = "turnfold._runtime.committer:Committer"
_DEADLINES = "test:contract/test_deadlines.py"
_FOREIGN = "test:contract/test_foreign_code.py"
_LIFE = "test:contract/test_kernel_life.py"
_ODD = "test:contract/test_odd_values.py"
_CORE = "test:contract/test_core_survives.py"
_DOUBT = "test:contract/test_behaviour_doubt.py"
_FAULTS = "test:contract/test_behaviour_faults.py"
_UPKEEP = "test:contract/test_upkeep.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "recovery", where, old, new, *killers)


RECOVERY: Final = (
    *clocks.CLOCKS,
    one(
        "blind retry: what a dead process had on the wire was never sent",
        "recovery",
        "turnfold._decide.outcomes:bury",
        "entry.phase is Phase.DISPATCHED or not rules.no_doubt(entry)",
        "not rules.no_doubt(entry)",
        "crash:blind-hold",
        "crash:lookup",
        world="orphan",
    ),
    one(
        "what was attempted and not dispatched is left alone",
        "recovery",
        "turnfold._decide.outcomes:bury",
        "not rules.sender_is_dead(entry, fence.epoch)",
        "entry.phase is Phase.ATTEMPTED",
        "crash:prepare",
        world="recovery",
    ),
    _broken(
        "a call is not listened to after its deadline",
        "turnfold._runtime.calls:Calls._judge",
        "call.listens and not call.timed_out",
        "False",
        f"{_DEADLINES}::a_receipt_after_the_deadline",
    ),
    _broken(
        "the task of a call and its context hold each other",
        "turnfold._runtime.calls:Calls.here",
        "_INSIDE.set(None)",
        "None",
        f"{_FLUSHING}::leaves_nothing",
    ),
    _broken(
        "a task goes on with a program that has left it",
        "turnfold._runtime.calls:Calls.here",
        "call.over",
        "False",
        f"{_DEADLINES}::a_receipt_after_the_deadline",
    ),
    _broken(
        "appends end with a task that somebody has cancelled",
        f"{_GROUP}._revive",
        "self._make_task(once=True)",
        "pass",
        f"{_CORE}::goes_on_after_all_tasks",
    ),
    _broken(
        "a store that refused a commit is not asked again",
        f"{_GROUP}._look_at_store",
        "loop.call_later(PROBE_S, self._probe)",
        "pass",
        "test:contract/test_health.py::an_idle_kernel_finds_out",
    ),
    _broken(
        "a commit that is cut off is forgotten",
        f"{_GROUP}._put_back",
        "self._queue, self._wanted = queue + self._queue, wanted + self._wanted",
        "pass",
        f"{_CORE}::no_append_is_lost",
    ),
    _broken(
        "a close cuts off the notice in a stopped live reply",
        "turnfold._runtime.retract:Retractor.rested",
        "self._tasks and left > 0",
        "False",
        "test:contract/test_live_stopped.py::closes_at_once",
    ),
    _broken(
        "a notice that a close cuts off is a bug of its channel",
        "turnfold._runtime.sender:Sender.preview",
        "call.timed_out or self.stopping",
        "call.timed_out",
        "test:contract/test_live_stopped.py::cuts_off_is_no_bug",
    ),
    _broken(
        "a drain does not wait for an outcome that no task waits for",
        "turnfold._runtime.lasting:Mending.mend",
        "task is not None and task.done()",
        "task is None or task.done()",
        f"{_FLUSHING}::no_task_waits_for",
    ),
    _broken(
        "a program that was cancelled before it began is forgotten",
        "turnfold._runtime.lasting:Mending.mend",
        "self._torn(key)",
        "pass",
        f"{_CORE}::no_append_is_lost",
    ),
    _broken(
        "a source ends with a task that somebody has cancelled",
        "turnfold._runtime.lasting:Lasting._has_ended",
        "self._stopped or not (task.cancelled() or error)",
        "True",
        f"{_CORE}::a_source_goes_on",
    ),
    _broken(
        "a file that hangs takes a thread of the large bodies",
        "turnfold.api.commands:_held",
        "await apart(answered, held, payload)",
        "await beside(partial(answered, held, payload))",
        f"{_ODD}::a_disk_that_hangs",
    ),
    _broken(
        "a drained kernel says that all is well",
        "turnfold.api.health:_holds",
        "facts['state'] == 'drained'",
        "False",
        f"{_ODD}::a_drained_kernel",
    ),
    _broken(
        "a length of time has no end",
        "turnfold.messages:check_span",
        "span > LONGEST_MS",
        "False",
        f"{_ODD}::a_length_of_time",
    ),
    _broken(
        "health breaks with the files",
        "turnfold_adapters.stores.sqlite.copying:kind",
        "apsw.Error",
        "KeyError",
        "test:contract/test_sqlite_files.py::health_answers",
    ),
    _broken(
        "a pipe is read as a file",
        "turnfold._log.bodies:_read",
        "not S_ISREG(path.stat().st_mode)",
        "False",
        f"{_ODD}::a_file_that_may_never_end",
    ),
    _broken(
        "an id keeps a class of its own",
        "turnfold.messages:_id_text",
        "str.__str__(value)",
        "value",
        f"{_ODD}::an_id_of_a_class",
    ),
    _broken(
        "a log handler that raises ends what says something",
        "turnfold.logs:Lines.log",
        "BaseException",
        "KeyError",
        f"{_CORE}::a_log_handler",
    ),
    _broken(
        "a question may raise what is no Exception",
        "turnfold._runtime.committer:_one",
        "BaseException",
        "Exception",
        f"{_CORE}::a_question_that_raises",
    ),
    _broken(
        "a store that took a commit after all is still said to refuse it",
        "turnfold._runtime.committer:Committer._after_unknown_fate",
        "self.trouble = None",
        "pass",
        "test:contract/test_health.py::stored_though_it_failed",
    ),
    _broken(
        "a call is judged at once after a stall of the loop",
        "turnfold._runtime.calls:Calls._judge",
        "stalled and not call.reprieved",
        "False",
        f"{_DEADLINES}::after_a_stall",
    ),
    _broken(
        "a blind part is sent again while its call is still listened to",
        "turnfold._decide.outcomes:_unknown",
        "waiting_helps and (not (keyed or edits)) and (cause == DEADLINE)",
        "False",
        f"{_DEADLINES}::no_blind_resend",
    ),
    _broken(
        "foreign code may raise what is no Exception",
        "turnfold._runtime.calls:contained",
        "BaseException",
        "(Exception, KeyboardInterrupt, SystemExit)",
        f"{_FOREIGN}::no_kind_of_misbehaviour",
    ),
    _broken(
        "an end that the handler chose counts as a failure",
        "turnfold._runtime.programs:_ending",
        "return partial(turns.not_now, stream=turn, run=number, wait_ms=wait)",
        "return partial(turns.run_failed, stream=turn, run=number, "
        "failure=FailureClass.TRANSIENT)",
        f"{_DEADLINES}::not_now",
    ),
    _broken(
        "a call from another thread is let in",
        "turnfold.api.portal:Home.check",
        "if not here:",
        "if False:",
        f"{_LIFE}::a_plain_question",
    ),
    _broken(
        "who gives up waiting for a closing ends it",
        "turnfold.api.life:Life.close",
        "await asyncio.shield(self._closing)",
        "await self._closing",
        f"{_LIFE}::a_closing_that_is_cancelled",
    ),
    _broken(
        "foreign code waits for its own end when it closes the kernel",
        "turnfold.api.life:Life.close",
        "not self._inside()",
        "True",
        f"{_LIFE}::foreign_code_may_close",
    ),
    _broken(
        "nothing is taken up at the start",
        "turnfold._runtime.scheduler:at_start",
        "for lane in book.lanes():",
        "for lane in ():",
        "crash:one",
    ),
    _broken(
        "orphans are not looked for",
        "turnfold._runtime.scheduler:at_start",
        "for lane in book.turn_lanes():",
        "for lane in ():",
        "crash:one",
    ),
    _broken(
        "the next worker keeps the epoch of the last",
        "turnfold.api.kernel:Kernel._promote",
        "self._epoch() + 1",
        "max(1, self._epoch())",
        f"{_DOUBT}::blind_after_a_crash",
    ),
    _broken(
        "who is not the worker any more speaks as before",
        "turnfold._decide.unit_of_work:UnitOfWork.authority",
        "fence is None or self.fence_lost",
        "fence is None",
        f"{_STALE}::the_end_of_an_attempt",
    ),
    _broken(
        "callers learn of a commit before it is made",
        f"{_GROUP}._commit",
        "",
        "[tell(Decided()) for _, tell in self._queue]",
        f"{_FLUSHING}::nothing_moves_before",
    ),
    _broken(
        "closing does not wait for the commit under way",
        f"{_GROUP}.close",
        "await self._idle.wait()",
        "pass",
        f"{_FLUSHING}::a_closed_queue",
    ),
    _broken(
        "a command stays in the inbox after its decision",
        "turnfold._decide.inbox:apply",
        'draft.take_out(command.id, _answer({"ok": result}) if command.answer else None)',
        "del result",
        "crash:client",
    ),
    _broken(
        "a decision that failed half-way keeps what it made",
        "turnfold._runtime.committer:_one",
        "draft.made != before",
        "False",
        f"{_FAULTS}::leaves_nothing_behind",
    ),
    _broken(
        "a commit of unknown fate counts as done",
        f"{_JOURNAL}._after_unknown_fate",
        "",
        "await self.store.reopen()\nreturn Commit([Decided() for _ in decisions])",
        "crash:store",
    ),
    _broken(
        "records of another owner are not looked for",
        f"{_JOURNAL}.suspects",
        "return self._lost or self._suspicious",
        "return False",
        "crash:zombie",
    ),
    _broken(
        "a worker goes on beside one of a later epoch",
        f"{_JOURNAL}._check_replaced",
        "state.epoch > fence.epoch",
        "False",
        f"{_UPKEEP}::a_later_worker",
    ),
    _broken(
        "one bad decision fails all of its commit",
        f"{_JOURNAL}._one_by_one",
        "",
        "return _refused(decisions, exc)",
        "test:contract/test_behaviour_accept.py::what_the_store_refuses",
    ),
    _broken(
        "no settle time: a look-up counts at once",
        f"{_SENDER}._unsettled",
        "",
        "return 0",
        f"{_DOUBT}::absence_counts",
    ),
    _broken(
        "a call that hangs counts as over",
        f"{_SENDER}._unsettled",
        "if entry.stream in self.hung:",
        "if False:",
        f"{_DOUBT}::while_a_call_hangs",
    ),
    _broken(
        "a standby's settle time began with its process",
        f"{_SENDER}.begin",
        "",
        "return",
        f"{_DOUBT}::settle_time_counts_from",
    ),
    _broken(
        "a call beyond its deadline was not sent",
        f"{_SENDER}._outcome",
        "",
        "if end is None or end.cancelled:\n"
        "    return Rejected(failure=FailureClass.CANCELLED)",
        f"{_DOUBT}::a_call_beyond",
    ),
    _broken(
        "a late receipt does not stop the send that it makes needless",
        f"{_SENDER}.send",
        "taken = self._register.find(attempt)",
        "self._register.enter(attempt)\ntaken = self._register.find(attempt)",
        f"{_DOUBT}::a_receipt_that_comes",
    ),
    _broken(
        "an attempt may be sent again by the process that sent it",
        f"{_SENDER}.send",
        "if taken.sent:",
        "if False:",
        f"{_DOUBT}::an_attempt_goes",
    ),
    _broken(
        "a call that was given up is not listened to",
        f"{_SENDER}._listen",
        "await self._evidence(attempt, outcome)",
        "pass",
        f"{_DOUBT}::a_receipt_that_comes",
    ),
    _broken(
        "an attempt that waits for a slot is sent though the process stops",
        f"{_SENDER}.send",
        "if self.stopping:",
        "if False:",
        f"{_DOUBT}::a_drain_records",
    ),
    _broken(
        "more is sent at once than the settings allow",
        "turnfold._runtime.dispatcher:Dispatcher.__init__",
        "asyncio.Semaphore(at_once)",
        "asyncio.Semaphore(at_once + 1)",
        f"{_DOUBT}::no_more_is_sent",
    ),
    _broken(
        "a lane program that looks sends an attempt that is on its way",
        "turnfold._runtime.driver:Driver.start",
        "key in self.live",
        "key in self.live and key.what != 'send'",
        f"{_DOUBT}::an_attempt_is_carried_once",
    ),
    _broken(
        "a drain leaves alone the attempts that nobody took up",
        "turnfold._runtime.driver:Driver._never_taken_up",
        "",
        "return []",
        f"{_DOUBT}::a_drain_records",
    ),
    _broken(
        "an exception of an adapter proves that nothing was sent",
        "turnfold._runtime.channel:AttachedChannel.outcome",
        "kind(cause='raised', detail=told(end.error))",
        "Rejected(failure=FailureClass.CANCELLED)",
        f"{_FAULTS}::whatever_an_adapter_raises",
    ),
    _broken(
        "a key may be forgotten before its last request lands",
        "turnfold._runtime.channel:_window_problem",
        "",
        "return ''",
        f"{_FAULTS}::a_key_that_is_forgotten",
    ),
    _broken(
        "a worker goes on without its lock",
        "turnfold._runtime.worker:Worker.check_ownership",
        "not self.ownership.held",
        "False",
        f"{_UPKEEP}::a_lock_file_removed",
    ),
    _broken(
        "an older copy of the store is taken for the original",
        "turnfold._runtime.worker:Upkeep.lost_history",
        "",
        "return None",
        "test:contract/test_restored.py::what_was_queued",
    ),
    _broken(
        "a restored turn is run at once",
        "turnfold._decide.operator:_hold",
        "",
        "return",
        "test:contract/test_restored.py::a_turn_of_the_copy",
    ),
    _broken(
        "a failover of the database server is not noticed",
        "turnfold._runtime.worker:Upkeep.lost_history",
        "mark is not None and mark.failover is not None",
        "False",
        "test:contract/test_failover.py::a_new_worker_doubts",
    ),
    _broken(
        "a failover before the first note is not noticed",
        "turnfold._runtime.worker:Upkeep.lost_history",
        "mark is not None and mark.failover is not None",
        "mark is not None and mark.store and mark.failover is not None",
        "test:contract/test_failover.py::before_the_first_note",
    ),
    _broken(
        "a second failover is taken for the first",
        "turnfold._decide.operator:_same",
        "known.failover == event.failover",
        "True",
        "test:contract/test_failover.py::noticed_once",
    ),
    _broken(
        "the watermark is replaced before it was judged",
        "turnfold._runtime.worker:Upkeep.note_watermark",
        "not self._trusted",
        "False",
        f"{_UPKEEP}::no_mark_is_written",
    ),
)

"""The mutants of owning a store: the right to append, the inbox of processes without it, and
clients that take a store for a moment because no worker lives."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_JOURNAL = "turnfold._runtime.committer:Committer"
_ALONE = "turnfold.api.client:Alone"
_INBOX = "test:contract/test_inbox.py"
_UNANSWERED = "test:contract/test_unanswered.py"
_COMMITS = "test:contract/test_group_commit.py"
_FAULTS = "test:contract/test_behaviour_faults.py"
_TAKING = "test:contract/test_taking_over.py"
_ENTRIES = "turnfold._runtime.programs"
_DECIDE = "turnfold._decide"
_DRIVER = "turnfold._runtime.driver:Driver"
_INTAKE = "turnfold._runtime.intake:Intake"
_TIMES = "test:contract/test_two_times.py"
_UPKEEP = "test:contract/test_upkeep.py"
_RESTORED = "test:contract/test_restored.py"
_ENDED = "test:contract/test_ended_loop.py"
_TOGETHER = "turnfold._runtime.together:Together"
_CALLS = "test:fast/test_together.py"
_ASKED = "test:contract/test_shared_looks.py"
_LOOKS = "turnfold.api.looking"
_LOOKING = "test:contract/test_looking.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "recovery", where, old, new, *killers)


OWNING: Final = (
    _broken(
        "a question sees the state before a commit of its tick",
        f"{_DRIVER}._of_this_tick",
        "draft is None or draft.made or draft.position != self.book.position",
        "draft is None or draft.made",
        f"{_ASKED}::every_commit_before_it",
    ),
    _broken(
        "an event of a question is seen by the next one of its tick",
        f"{_DRIVER}._of_this_tick",
        "draft is None or draft.made or draft.position != self.book.position",
        "draft is None or draft.position != self.book.position",
        f"{_ASKED}::an_event_of_a_question",
    ),
    _broken(
        "a worker that stands down asks with its old right until the tick is over",
        f"{_DRIVER}._start_nothing",
        "self._look_anew()",
        "pass",
        f"{_ASKED}::whoever_stands_down",
    ),
    _broken(
        "a caller who waits is left alone once a look was cut off",
        f"{_LOOKS}:Looks._has_ended",
        "self._waiting",
        "False",
        f"{_LOOKING}::cut_off",
    ),
    _broken(
        "a caller waits for ever for a stream that is nowhere",
        f"{_LOOKS}:_is_news",
        "return stream not in found.waiting",
        "return False",
        f"{_LOOKING}::nowhere",
    ),
    _broken(
        "a caller who waits for an end is woken by a parked entry",
        f"{_LOOKS}:_is_news",
        "parked and row.phase == Phase.PARKED",
        "row.phase == Phase.PARKED",
        f"{_LOOKING}::parked",
    ),
    _broken(
        "a process that let go of the store counts as its worker",
        "turnfold_adapters.stores.ownership:FileOwnership.taken",
        "return is_alive(owner) if locked is None else locked",
        "return is_alive(owner)",
        "test:contract/test_ownership.py::let_go_and_lives_on",
    ),
    _broken(
        "a store that a person calls a restored copy is trusted",
        "turnfold._decide.operator:declared",
        "not _in_hand(state, epoch)",
        "False",
        "test:contract/test_declared_restored.py::parked_and_held",
    ),
    _broken(
        "a declared restore takes an attempt of this worker for one of the copy",
        "turnfold._decide.operator:declared",
        "not _in_hand(state, epoch)",
        "True",
        "test:contract/test_declared_restored.py::goes_on",
    ),
    _broken(
        "a client without rights declares a restore",
        "turnfold.api.client:Alone._empty",
        "takewhile(lambda c: c.kind != inbox.DECLARE, fit)",
        "fit",
        "test:contract/test_declared_restored.py::before_the_worker",
    ),
    _broken(
        "a caller that gives up waiting leaves its place",
        "turnfold.api.waiting:Waiting._awaited",
        "not waiters and self._waiters.get(stream) is waiters",
        "False",
        "test:contract/test_every_argument.py::gives_up_waiting",
    ),
    _broken(
        "a missing channel is told for each entry",
        "turnfold.api.telling:Missing.channel",
        "key in self._channels or key in self._attached",
        "key in self._attached",
        "test:contract/test_log_lines.py::missing_channel",
    ),
    _broken(
        "people see the log time of what happened",
        "turnfold.inspect.times:seen_at",
        "record.at if record.wall is None else record.wall",
        "record.at",
        f"{_TIMES}::people_see_wall_time",
    ),
    _broken(
        "people see the log time of what is to come",
        "turnfold.inspect.times:to_come",
        "at - shift",
        "at",
        f"{_TIMES}::people_see_wall_time",
    ),
    _broken(
        "a worker that has taken over does not note its time at once",
        "turnfold.api.kernel:Kernel._doubt_if_restored",
        "mark is not None or worker.upkeep.has_news",
        "mark is not None",
        f"{_TIMES}::between_two_lives_of_one_boot",
    ),
    _broken(
        "programs of a store that was given up try to append for ever",
        f"{_DRIVER}._wait",
        "self._abandoned",
        "False",
        "test:contract/test_kernel_life.py::leaves_no_program_behind",
    ),
    _broken(
        "a record is acted upon whatever its hash says",
        "turnfold._runtime.damage:check_hashes",
        "",
        "return",
        "test:contract/test_damaged_record.py::nothing_is_decided",
    ),
    _broken(
        "a worker starts what is open before it has read the inbox",
        "turnfold._runtime.programs:take_over",
        "yield Hear()",
        "pass",
        f"{_TAKING}::if_its_abort_waits",
    ),
    _broken(
        "a client looks on while its store takes nothing, and says so at each look",
        "turnfold.api.client:Alone._apply_all",
        "isinstance(error, NOT_NOW)",
        "False",
        f"{_UNANSWERED}::one_line_and_not_one_a_look",
    ),
    _broken(
        "a command is forgotten when its caller stops waiting",
        "turnfold.api.unanswered:Unanswered.follow",
        "self._since and self._following is None",
        "False",
        f"{_UNANSWERED}::until_it_is_done",
    ),
    _broken(
        "an error of the store after the post comes out of the command",
        "turnfold.api.client:Mailbox._try_alone",
        "(StoreError, NotOpenError)",
        "NotOpenError",
        f"{_UNANSWERED}::says_that_nothing_was_stored",
    ),
    _broken(
        "a command is set aside though somebody took the rights to the store",
        f"{_INTAKE}._failed",
        "isinstance(error, NOT_NOW)",
        "isinstance(error, OwnedError)",
        "test:contract/test_inbox.py::taken_the_rights",
    ),
    _broken(
        "an inbox that cannot be read is skipped at the take-over",
        "turnfold._runtime.programs:take_over",
        "yield from back_off(exc, 'taking over')",
        "break",
        f"{_TAKING}::delays_the_take_over",
    ),
    _broken(
        "only the first page of the inbox is read",
        f"{_INTAKE}._read",
        "more = len(found) >= room",
        "more = False",
        f"{_TAKING}::if_its_abort_waits",
    ),
    _broken(
        "a reading of the inbox answers who asked after it began",
        f"{_INTAKE}.read",
        "asked = self._begun",
        "asked = self._begun - self._lock.locked()",
        f"{_TAKING}::a_reading_that_began_before",
    ),
    _broken(
        "turns start while the store is taken over",
        "turnfold.api.kernel:Kernel._context",
        "driver.draining or driver.taking_over",
        "driver.draining",
        f"{_TAKING}::delays_the_take_over",
    ),
    _broken(
        "programs start while the store is taken over",
        f"{_DRIVER}.moved",
        "if self.works:",
        "if self.epoch:",
        f"{_TAKING}::delays_the_take_over",
    ),
    _broken(
        "a worker whose opening was cancelled goes on",
        "turnfold.api.kernel:Kernel._undo",
        "driver.abandon()",
        "pass",
        f"{_TAKING}::leaves_nobody_at_work",
    ),
    _broken(
        "a part in doubt is sent again before the inbox is read",
        f"{_ENTRIES}:_heard",
        "yield Hear()",
        "pass",
        "crash:zombie-resend",
        f"{_TAKING}::is_read_before_the_resend",
    ),
    _broken(
        "what was prepared to go again is sent before the inbox is read",
        f"{_ENTRIES}:_prepare",
        "yield Hear()",
        "pass",
        f"{_TAKING}::what_was_prepared",
    ),
    _broken(
        "any decision may send again what is in doubt",
        f"{_DECIDE}.schedule:attempt_if_free",
        "heard and step.act is Act.RESEND",
        "step.act is Act.RESEND",
        f"{_TAKING}::a_persons_word",
    ),
    _broken(
        "a resend that was granted counts as harmless",
        f"{_DECIDE}.schedule:_harmless",
        "",
        "return True",
        f"{_TAKING}::was_granted",
    ),
    _broken(
        "a command attempts what the next one aborts",
        f"{_DECIDE}.inbox:apply",
        "draft.hears = True",
        "pass",
        f"{_TAKING}::an_abort_frees_no_lane",
    ),
    _broken(
        "a person's word about the attempt of a dead sender is refused",
        f"{_DECIDE}.operator:resolve",
        "bury(draft, draft.entry(stream))",
        "draft.entry(stream)",
        f"{_TAKING}::who_said_delivered",
    ),
    _broken(
        "a commit begins while another one is under way",
        "turnfold._runtime.group_commit:GroupCommit._run",
        "await self._commit()",
        "_ = asyncio.ensure_future(self._commit())\nawait asyncio.sleep(0)",
        f"{_COMMITS}::come_meanwhile",
    ),
    _broken(
        "a commit that was refused is decided again on the same state",
        f"{_JOURNAL}._was_refused",
        "await self._read_anew(before.position)",
        "pass",
        f"{_FAULTS}::not_the_one_any_more",
    ),
    _broken(
        "a handle whose memory is wrong is believed",
        f"{_JOURNAL}._was_refused",
        "await self.reopen()",
        "pass",
        "test:contract/test_stale_handle.py",
    ),
    _broken(
        "a store in doubt is not read by the poll",
        f"{_JOURNAL}.suspects",
        "return self._lost or self._suspicious",
        "return self._suspicious",
        f"{_COMMITS}::is_found_by_the_poll",
    ),
    _broken(
        "a worker that has lost its store appends all the same",
        "turnfold._runtime.driver:Driver.stand_down",
        "self.journal.stand_down()",
        "pass",
        f"{_UPKEEP}::a_success_after_the_loss",
    ),
    _broken(
        "only the first event of a stream in a commit knows its position",
        "turnfold._decide.unit_of_work:UnitOfWork.emit",
        "position = self._places[stream]",
        "position = self._places[stream] if items is None else 0",
        f"{_RESTORED}::what_was_queued",
    ),
    _broken(
        "the owner gives a message that waits in the inbox a second turn",
        "turnfold._decide.accepting:_known",
        "promised if turn != known else None",
        "None",
        f"{_INBOX}::keeps_its_turn",
    ),
    _broken(
        "the owner believes its memory of a key that was promised meanwhile",
        f"{_JOURNAL}._was_refused",
        "return",
        "pass",
        f"{_INBOX}::while_the_owner_decides",
    ),
    _broken(
        "a log begins without the event that names it",
        f"{_JOURNAL}.begin",
        "self.book.position == 0",
        "False",
        f"{_INBOX}::begins_a_new_store",
    ),
    _broken(
        "a client goes on with an older copy of the store",
        f"{_ALONE}._apply",
        "await self._upkeep.lost_history(journal.store_id) is not None",
        "False",
        f"{_RESTORED}::only_a_worker",
    ),
    _broken(
        "a worker that lost the store uses its old right as a client",
        f"{_ALONE}._without_rights",
        "",
        "return self._context()",
        f"{_INBOX}::without_rights",
    ),
    _broken(
        "a client that is cancelled keeps the store",
        f"{_ALONE}.apply",
        "await asyncio.shield(self._task)",
        "await self._task",
        f"{_INBOX}::that_is_cancelled",
    ),
    _broken(
        "a client does not follow the time of the log",
        f"{_ALONE}._apply",
        "self._clock.begin(journal.book.last_at, lived)",
        "pass",
        f"{_INBOX}::the_time_of_the_log",
    ),
    _broken(
        "a posted payload expires by the time of its logging",
        "turnfold._decide.inbox:_enqueue",
        "data.ttl_ms - waited",
        "data.ttl_ms",
        f"{_INBOX}::expires_by_the_time",
    ),
    _broken(
        "a kernel waits for ever for one whose event loop is over",
        "turnfold._runtime.worker:Worker.start",
        "self.ownership.ended",
        "False",
        f"{_ENDED}::lost_its_loop_is_refused",
    ),
    _broken(
        "a file lock does not know the loop of its owner",
        "turnfold_adapters.stores.ownership:FileOwnership.ended",
        "loop is not None and loop.is_closed()",
        "False",
        f"{_ENDED}::lost_its_loop_is_refused",
    ),
    _broken(
        "a standby does not say that its owner can never let go",
        "turnfold._runtime.worker:Worker.standing_by",
        "self.ownership.ended",
        "False",
        f"{_ENDED}::says_why_it_waits",
    ),
    _broken(
        "a call of a kernel whose loop is over is sent to the portal",
        "turnfold.api.portal:Home.check",
        "not here and self._loop.is_closed()",
        "False",
        f"{_ENDED}::says_so",
    ),
    _broken(
        "a command that is no valid input fails those of other callers",
        f"{_TOGETHER}._answer",
        "len(some) == 1",
        "True",
        f"{_CALLS}::an_invalid_item",
    ),
    _broken(
        "a caller waits for ever for a call that was cut off",
        f"{_TOGETHER}._run",
        "_refuse(some, FateUnknownError(path=self._address, problem=problem))",
        "pass",
        f"{_CALLS}::a_call_that_is_cut_off",
    ),
    _broken(
        "a body that was just stored is read back for its plan",
        "turnfold._runtime.stored_bodies:BodiesAtHand._seen",
        "self._kept.get(place_of(stream, ref))",
        "None",
        f"{_INBOX}::are_posted_together",
    ),
)

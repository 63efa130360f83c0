"""The mutants of the SQLite store (its refusals, assertions and rollbacks) and of the codec."""

from typing import Final

from turnfold_model.mutants.code import Edit, Mutant, one

_S = "turnfold_adapters.stores"
_SQLITE = f"{_S}.sqlite.store:SqliteStore"
_TX = f"{_S}.sqlite.transaction:WriteTransaction"
_WRITING = f"{_S}.sqlite.writing:Writing"
_QUEUE = f"{_S}.sqlite.writing:WriteQueue"
_SEAT = f"{_S}.ownership:FileOwnership"
_TESTS = "test:contract"
_CHECKPOINT = f"{_TESTS}/test_sqlite_checkpoint.py"
_ERASING = f"{_TESTS}/test_sqlite_erasing.py"
_THREADS = f"{_TESTS}/test_sqlite_threads.py"
_OWNERSHIP = f"{_TESTS}/test_ownership.py"
_FILES = f"{_TESTS}/test_sqlite_files.py"
_DAMAGE = f"{_TESTS}/test_sqlite_log_damage.py"
_CODEC = "test:fast/test_codec.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "store", where, old, new, *killers)


STORE: Final = (
    Mutant(
        "two handles of one process may both be the worker",
        "store",
        (
            Edit(
                f"{_SEAT}._lock",
                "if _key_of(self._file) in _registry.open:",
                "if False:",
            ),
            Edit(f"{_SEAT}._lock", "if key in _registry.open:", "if False:"),
        ),
        ("store",),
    ),
    _broken(
        "a commit in files that lost their names counts",
        f"{_WRITING}._end",
        "self._files is not None",
        "False",
        f"{_FILES}::lost_their_name",
    ),
    _broken(
        "a log that was cut off is written to",
        f"{_WRITING}._check_log",
        "not files.check_log(self.wal.least)",
        "False",
        f"{_FILES}::meddled_with",
    ),
    _broken(
        "a database that was cut off is written to",
        f"{_S}.sqlite.files:OpenFiles.check",
        "now[2] < known[2]",
        "False",
        f"{_FILES}::meddled_with",
    ),
    _broken(
        "a log that SQLite cut off counts as lost",
        f"{_WRITING}._check_log",
        "not self.wal.cut_by_sqlite()",
        "True",
        f"{_FILES}::moves_and_cuts_off",
    ),
    _broken(
        "a part of a cut log is moved to the database at the end",
        f"{_WRITING}.end",
        "not self._files.check_log(self.wal.least)",
        "False",
        f"{_FILES}::left_of_a_log",
    ),
    _broken(
        "commits that a damaged log lost are not told",
        f"{_S}.sqlite.store:SqliteStore._look_for_damage",
        "if lost is not None:",
        "if False:",
        f"{_DAMAGE}::damaged_log_lost",
    ),
    _broken(
        "a torn end of a log counts as damage",
        f"{_S}.sqlite.log_damage:_look",
        "if not behind:",
        "if not ends:",
        f"{_DAMAGE}::a_torn_end",
    ),
    _broken(
        "a header of a log that does not fit is believed",
        f"{_S}.sqlite.log_damage:_look",
        "not _fits(header)",
        "False",
        f"{_DAMAGE}::damaged_log_lost",
    ),
    _broken(
        "the proof of a damaged log stays behind",
        "turnfold.api.kernel:Kernel._doubt_if_restored",
        "await worker.upkeep.erase()",
        "pass",
        f"{_DAMAGE}::told_once",
    ),
    _broken(
        "a worker without work does not look at its files",
        f"{_SEAT}.held",
        "self._book.intact()",
        "True",
        f"{_FILES}::without_work",
    ),
    _broken(
        "a worker whose files are lost goes on",
        "turnfold._runtime.committer:Committer._failed",
        "self.replaced = exc",
        "pass",
        f"{_FILES}::meddled_with",
    ),
    _broken(
        "a table that another program changed is worked with",
        f"{_S}.sqlite.schema:check",
        "_check_tables(conn, path)",
        "pass",
        "test:contract/test_sqlite_opening.py::a_changed_table",
    ),
    _broken(
        "a sweep looks through a link",
        f"{_S}.sqlite.files:BodyFolder.names",
        "self._path.is_symlink() or not self._path.is_dir()",
        "not self._path.is_dir()",
        f"{_FILES}::a_sweep",
    ),
    _broken(
        "an owner that nobody has reaped counts as alive",
        f"{_S}.processes:start_time",
        "_is_over(fields)",
        "False",
        f"{_OWNERSHIP}::nobody_has_reaped",
    ),
    _broken(
        "two processes may both be the worker",
        f"{_S}.ownership:_try_lock",
        "",
        "return True",
        f"{_OWNERSHIP}::while_another_process",
    ),
    _broken(
        "a lock on a file that was unlinked counts",
        f"{_SEAT}.held",
        "_key_of(self._file) == self._held[0]",
        "True",
        f"{_OWNERSHIP}::an_owner_notices",
    ),
    _broken(
        "a new lock file makes a second worker",
        f"{_SEAT}._claim",
        "if not gone:",
        "if False:",
        f"{_OWNERSHIP}::an_unlinked_lock_file",
    ),
    _broken(
        "a forked child may use the store of its parent",
        f"{_SQLITE}._check_process",
        "",
        "return",
        f"{_TESTS}/test_sqlite_writing.py::a_forked_child",
    ),
    _broken(
        "bodies are not written",
        f"{_TX}.apply",
        "if bodies:",
        "if False:",
        "store",
    ),
    _broken(
        "a large body is not durable before the commit that names it",
        f"{_S}.sqlite.files:write_synced",
        "os.fsync(file.fileno())",
        "pass",
        f"{_TESTS}/test_sqlite_failing_disk.py::a_large_body_is_durable",
    ),
    _broken(
        "synchronous is NORMAL",
        f"{_S}.sqlite.connection:_require_synchronous",
        "",
        "conn.pragma('synchronous', 'NORMAL')\nreturn",
        "power:blind",
    ),
    _broken(
        "nobody asks whether FULL was granted",
        f"{_S}.sqlite.connection:_require_synchronous",
        "level != _LEVELS[settings.synchronous]",
        "False",
        f"{_TESTS}/test_sqlite_opening.py::a_level_that_is_not_granted",
    ),
    _broken(
        "nobody asks whether the log is a WAL",
        f"{_S}.sqlite.connection:_require_wal",
        "mode != 'wal'",
        "False",
        f"{_TESTS}/test_sqlite_opening.py::a_disk_without_shared_memory",
    ),
    _broken(
        "what is erased stays in free pages",
        f"{_S}.sqlite.connection:_require_secure_delete",
        "",
        "return",
        f"{_TESTS}/test_sqlite_erasing.py::every_connection",
    ),
    _broken(
        "a write on an older head is taken",
        f"{_TX}.apply",
        "if write.base is not base and write.base != base:",
        "if False:",
        "store",
    ),
    _broken(
        "no conflict check",
        f"{_TX}._log_rows",
        "if version - count != known.version or count < 1:",
        "if count < 1:",
        "store",
    ),
    _broken(
        "positions need not follow the head",
        f"{_TX}._log_rows",
        "if r.position != position:",
        "if False:",
        "store",
    ),
    _broken(
        "the head is not the running hash",
        f"{_TX}._log_rows",
        "digest = sha256(digest + r.hash).digest()",
        "digest = r.hash",
        "store",
    ),
    _broken(
        "large commits leave blocks without a digest",
        f"{_TX}._digest",
        "range(_BLOCKS)",
        "range(1)",
        "test:contract/test_sqlite_digest.py::leave_no_block",
    ),
    _broken(
        "a dedupe key may be taken twice",
        f"{_TX}._put_keys",
        "self._many(_KEY, keys)",
        "self._many(_KEY.replace('INSERT', 'INSERT OR REPLACE'), keys)",
        "store",
    ),
    _broken(
        "a key that a waiting command promised goes to another stream",
        f"{_TX}._put_keys",
        "self._many(_KEY, keys)",
        "self._many('INSERT INTO dedupe SELECT ?1, ?2 WHERE ?3 = ?3', keys)",
        "store",
    ),
    _broken(
        "a command is posted though its key is held",
        f"{_WRITING}._post",
        "if row is not None:",
        "if False:",
        "store",
    ),
    _broken(
        "a command stays in the inbox after the commit that logs it",
        f"{_TX}.apply",
        "if write.done:",
        "if False:",
        "store",
    ),
    _broken(
        "a body that comes late moves its neighbours",
        f"{_TX}._put",
        "if place > self.last_body:",
        "if True:",
        f"{_ERASING}::no_order",
    ),
    _broken(
        "rows of the inbox leave copies of what they held",
        f"{_TX}.apply",
        "self._renew_inbox()",
        "pass",
        f"{_ERASING}::came_through_the_inbox",
    ),
    _broken(
        "a sweep removes files that are not the store's own",
        f"{_S}.sqlite.files:BodyFolder.names",
        "filter(_OURS, ours)",
        "ours",
        f"{_TESTS}/test_sqlite_writing.py::files_that_a_crash_left",
    ),
    _broken(
        "a commit on the loop overtakes one in the thread",
        f"{_QUEUE}.inline",
        "self._waiting == 0",
        "True",
        f"{_THREADS}::a_queue_runs",
    ),
    _broken(
        "a commit on the loop waits for another process",
        f"{_WRITING}._begin",
        "wait.patient = patient",
        "pass",
        f"{_THREADS}::does_not_wait_for_another_process",
    ),
    _broken(
        "a checkpoint runs on the loop",
        f"{_QUEUE}.there",
        "if self.flush is Flush.LOOP:",
        "if True:",
        f"{_THREADS}::never_waits",
    ),
    _broken(
        "ownership is let go under a commit",
        f"{_SQLITE}.after_writing",
        "if self._queue.idle or self._queue.is_here:",
        "if True:",
        f"{_THREADS}::let_go_after",
    ),
    _broken(
        "a projection of another version is taken",
        f"{_S}.checking:check_projection",
        "if summary.version != version:",
        "if False:",
        "store",
    ),
    _broken(
        "what is remembered of streams outlives the commit of another process",
        f"{_S}.sqlite.known:Remembered.check",
        "",
        "return",
        "store",
    ),
    _broken(
        "a log of which a sync failed is begun anew",
        f"{_S}.sqlite.wal:Wal.leave",
        "self._stopped = True",
        "pass",
        f"{_CHECKPOINT}::after_a_sync_that_failed",
    ),
    _broken(
        "a log of which a sync failed is removed by closing",
        f"{_S}.sqlite.wal:Wal.leave",
        "self._conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)",
        "pass",
        f"{_CHECKPOINT}::after_a_sync_that_failed",
    ),
    _broken(
        "closing leaves the thread that moves the log",
        f"{_S}.sqlite.wal:Wal.close",
        "self._land()",
        "pass",
        f"{_CHECKPOINT}::closing_waits",
    ),
    _broken(
        "the thread opens the file beside SQLite",
        f"{_S}.sqlite.wal:handles",
        "",
        "return [os.open(path, os.O_RDWR)]",
        f"{_CHECKPOINT}::a_second_descriptor",
    ),
    _broken(
        "a transaction that failed is not rolled back",
        f"{_S}.sqlite.connection:rollback",
        "",
        "return True",
        "store",
    ),
    _broken(
        "a failed commit counts as surely not stored",
        f"{_WRITING}._end",
        "(apsw.BusyError, apsw.FullError)",
        "(apsw.BusyError, apsw.FullError, apsw.IOError)",
        "refused",
    ),
    _broken(
        "after a commit of unknown fate the store goes on",
        f"{_WRITING}._end",
        "self._in_doubt(exc)",
        "pass",
        f"{_TESTS}/test_sqlite_failing_disk.py::after_a_commit",
    ),
    _broken(
        "an event is stored with fields of the wrong type",
        "turnfold._log.codec:encode",
        "form.read(data)",
        "None",
        f"{_CODEC}::a_value_of_the_wrong_type",
    ),
    _broken(
        "an event is read from bytes that are not canonical",
        "turnfold._log.codec:_read",
        "again != data",
        "False",
        f"{_CODEC}::every_field_at_its_default",
    ),
)

"""The mutants of the SQLite store (what it refuses, asserts and undoes) and of the codec."""

from typing import Final

from turnfold_model.mutants_code import Edit, Mutant, one

_S = "turnfold_adapters.stores"
_SQLITE = f"{_S}.sqlite:SqliteStore"
_WRITING = f"{_S}.sqlite_writing:Writing"
_SEAT = f"{_S}.ownership:FileOwnership"
_TESTS = "test:contract"
_CHECKPOINT = f"{_TESTS}/test_sqlite_checkpoint.py"
_OWNERSHIP = f"{_TESTS}/test_ownership.py"
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
        f"{_S}.sqlite_tx:SqliteTx._write",
        "if self._bodies:",
        "if False:",
        "store",
    ),
    _broken(
        "a large body is not durable before the commit that names it",
        f"{_S}.sqlite_bodies:write_synced",
        "os.fsync(file.fileno())",
        "pass",
        f"{_TESTS}/test_sqlite_failing_disk.py::a_large_body_is_durable",
    ),
    _broken(
        "synchronous is NORMAL",
        f"{_S}.sqlite_connection:_require_synchronous",
        "",
        "conn.pragma('synchronous', 'NORMAL')\nreturn",
        "power:blind",
    ),
    _broken(
        "nobody asks whether FULL was granted",
        f"{_S}.sqlite_connection:_require_synchronous",
        "level != _LEVELS[settings.synchronous]",
        "False",
        f"{_TESTS}/test_sqlite_opening.py::a_level_that_is_not_granted",
    ),
    _broken(
        "nobody asks whether the log is a WAL",
        f"{_S}.sqlite_connection:_require_wal",
        "mode != 'wal'",
        "False",
        f"{_TESTS}/test_sqlite_opening.py::a_disk_without_shared_memory",
    ),
    _broken(
        "what is erased stays in free pages",
        f"{_S}.sqlite_connection:_require_secure_delete",
        "",
        "return",
        f"{_TESTS}/test_sqlite_erasing.py::every_connection",
    ),
    _broken(
        "no conflict check",
        f"{_S}.sqlite_tx:SqliteTx._follow",
        "if version != known.version + 1:",
        "if False:",
        "store",
    ),
    _broken(
        "the head is not the running hash",
        f"{_S}.sqlite_tx:SqliteTx._follow",
        "digest = sha256(digest + r.hash).digest()",
        "digest = r.hash",
        "store",
    ),
    _broken(
        "the last two bits of a digest's text are ignored",
        f"{_S}.sqlite_rows:raw_digest",
        "if _DIGEST(digest) is None:",
        "if len(digest) != 43:",
        f"{_TESTS}/test_sqlite_writing.py::a_digest_has_one_text",
    ),
    _broken(
        "a dedupe key may be taken twice",
        f"{_S}.sqlite_tx:SqliteTx._check_keys",
        "if holder is not None:",
        "if False:",
        "store",
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
        f"{_S}.sqlite_known:Remembered.check",
        "",
        "return",
        "store",
    ),
    _broken(
        "a log of which a sync failed is begun anew",
        f"{_S}.sqlite_wal:Wal._failed",
        "self._stopped = True",
        "pass",
        f"{_CHECKPOINT}::after_a_sync_that_failed",
    ),
    _broken(
        "a log of which a sync failed is removed by closing",
        f"{_S}.sqlite_wal:Wal._failed",
        "self._conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)",
        "pass",
        f"{_CHECKPOINT}::after_a_sync_that_failed",
    ),
    _broken(
        "closing leaves the thread that moves the log",
        f"{_S}.sqlite_wal:Wal.close",
        "self._land()",
        "pass",
        f"{_CHECKPOINT}::closing_waits",
    ),
    _broken(
        "the thread opens the file beside SQLite",
        f"{_S}.sqlite_mover:_handles",
        "",
        "return [os.open(path, os.O_RDWR)]",
        f"{_CHECKPOINT}::a_second_descriptor",
    ),
    _broken(
        "a transaction that failed is not rolled back",
        f"{_S}.sqlite_connection:rollback",
        "",
        "return True",
        "store",
    ),
    _broken(
        "a refused transaction leaves what it remembered",
        f"{_WRITING}._undo",
        "self.known.forget()",
        "pass",
        f"{_TESTS}/test_sqlite_writing.py::a_transaction_cut",
    ),
    _broken(
        "a failed commit counts as surely not stored",
        f"{_WRITING}._commit",
        "(apsw.BusyError, apsw.FullError)",
        "(apsw.BusyError, apsw.FullError, apsw.IOError)",
        "refused",
    ),
    _broken(
        "after a commit of unknown fate the store goes on",
        f"{_WRITING}._commit",
        "self._doubt(exc)",
        "pass",
        f"{_TESTS}/test_sqlite_failing_disk.py::after_a_commit",
    ),
    _broken(
        "an event is stored with fields of the wrong type",
        "turnfold.codec:encode",
        "form.read(data)",
        "None",
        f"{_CODEC}::a_value_of_the_wrong_type",
    ),
    _broken(
        "an event is read from bytes that are not canonical",
        "turnfold.codec:_read",
        "again != data",
        "False",
        f"{_CODEC}::every_field_at_its_default",
    ),
)

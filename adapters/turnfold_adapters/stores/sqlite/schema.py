"""The tables of a SQLite store, and the test that a file is a store.

The cost of a commit is its written and synced pages, so the layout saves pages.

- `stream` has one row per stream and doubles as the projection. Its id is the position
  of the stream's first record, so "by order" is "by row".
- `log` has one row per commit and stream. A stream is read backwards from `last` along
  `prev`; the last record of each commit has the running head.
- `body` is keyed by stream and number in one integer that grows with the log. Rows are
  only appended. A row between others can split a page: its neighbours are copied to a new
  page, their bytes stay on the old one, and a later erasure misses them. So a body that
  comes late to an older stream goes to `late_body`.
- `inbox` and `answer` are ordered by an integer key that grows.
- The tables of `digest` answer questions about many streams.
- The tables of `pruning` hold the remains of streams that were taken out.

The reasons with figures: specs/decisions/0010-sqlite-layout.md.
"""

import re

import apsw

from turnfold.errors import NewerSchemaError, NotAStoreError, UnsafeStoreError
from turnfold_adapters.stores.sqlite import digest

APPLICATION_ID = 0x54464C44  # "TFLD", in the file's header
WITHOUT_TEXT = 0x54464C57  # "TFLW": a read-only copy without bodies
_FIRST = 1
SCHEMA = 1  # the layout below; in the file's header as user_version

# The lowest SCHEMA with code that can read this layout. A layout that only adds to the one
# before it raises SCHEMA and not this number, so an older turnfold can still read it.
READABLE_BY = 1

NUMBER_BITS = 20  # of a body's number in its place


def place_of(stream: int, number: int) -> int:
    """The key of a body: its stream's id and its number."""
    return stream << NUMBER_BITS | number


_TABLES = (
    """CREATE TABLE stream (
        id INTEGER PRIMARY KEY,  -- position of its first record
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        last INTEGER NOT NULL,  -- position of its last record
        open INTEGER NOT NULL DEFAULT 0,
        phase TEXT,  -- null: the stream has no summary
        created INTEGER,
        updated INTEGER,
        lane TEXT,
        parent INTEGER,  -- id of a stream
        kind TEXT,
        due INTEGER,
        expires INTEGER,
        reason TEXT,
        failure TEXT,
        person INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE INDEX stream_open ON stream (id) WHERE open = 1",
    "CREATE INDEX stream_person ON stream (id) WHERE person = 1",
    "CREATE INDEX stream_parent ON stream (parent) WHERE parent IS NOT NULL",
    """CREATE TABLE log (
        position INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        version INTEGER NOT NULL,  -- of its last event
        count INTEGER NOT NULL,  -- of its events
        at INTEGER NOT NULL,
        wall INTEGER,  -- null: as good as `at`
        shard INTEGER NOT NULL,
        events BLOB NOT NULL,
        hash BLOB NOT NULL,
        prev INTEGER,  -- position of the record before it in the stream
        head BLOB  -- the running hash, on the last record of a commit
    ) STRICT""",
    """CREATE TABLE body (
        id INTEGER PRIMARY KEY,  -- stream << 20 | number; see `place_of`
        salt BLOB,  -- null: the body was erased, and `data` is null, too
        data BLOB  -- null beside a salt: the bytes are in a file beside the database
    ) STRICT""",
    """CREATE TABLE late_body (
        id INTEGER PRIMARY KEY,
        place INTEGER NOT NULL UNIQUE,  -- as `id` in table `body`
        salt BLOB,
        data BLOB
    ) STRICT""",
    """CREATE TABLE inbox (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        stream TEXT NOT NULL,
        key TEXT,
        at INTEGER NOT NULL,
        data BLOB NOT NULL,
        bodies BLOB,  -- each after its length in 8 bytes
        answer INTEGER NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX inbox_key ON inbox (key) WHERE key IS NOT NULL",
    """CREATE TABLE answer (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        at INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE pruned (
        position INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        head BLOB,  -- as in table `log`
        by INTEGER NOT NULL  -- position of the record that says so
    ) STRICT""",
    """CREATE TABLE pruned_tally (  -- as `tally`
        hour INTEGER NOT NULL,
        family TEXT NOT NULL,
        place TEXT NOT NULL,
        kind TEXT NOT NULL,
        phase TEXT NOT NULL,
        reason TEXT NOT NULL,
        failure TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (hour, family, place, kind, phase, reason, failure)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE body_block (
        block INTEGER PRIMARY KEY,  -- of positions, as in `tally`
        gone INTEGER NOT NULL,  -- bodies that were pruned
        seen INTEGER NOT NULL DEFAULT 0,  -- `gone` when it was last looked at
        state INTEGER NOT NULL DEFAULT 0  -- 1: all of its rows are empty; 2: deleted
    ) STRICT""",
    """CREATE TABLE dedupe (
        key TEXT PRIMARY KEY,
        stream INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE key_place (  -- each key of a message up to its third slash, once
        name TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE layout (readable_by INTEGER NOT NULL) STRICT",
    """CREATE TABLE owner (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        name TEXT NOT NULL,
        boot TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,
        host TEXT NOT NULL,
        store TEXT NOT NULL,
        lock TEXT NOT NULL
    ) STRICT""",
)


def create(conn: apsw.Connection) -> None:
    """Make all tables in one transaction, unless another process has made them."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        if is_blank(conn):
            _create(conn)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _create(conn: apsw.Connection) -> None:
    for table in (*_TABLES, *digest.TABLES):
        conn.execute(_bare(table))
    conn.execute("INSERT INTO digested VALUES (0)")
    conn.execute("INSERT INTO layout VALUES (?)", (READABLE_BY,))
    conn.pragma("application_id", APPLICATION_ID)
    conn.pragma("user_version", SCHEMA)


def _bare(sql: str) -> str:
    """The SQL without comments: the file stores this text, and each open reads it."""
    return " ".join(re.sub("--.*", "", sql).split())


def has_text(conn: apsw.Connection) -> bool:
    """False for a copy without text."""
    return bool(conn.pragma("application_id") != WITHOUT_TEXT)


def is_blank(conn: apsw.Connection) -> bool:
    """True for an empty database."""
    marks = conn.pragma("application_id"), conn.pragma("user_version")
    tables: int = conn.execute("SELECT count(*) FROM sqlite_schema").get
    return marks == (0, 0) and tables == 0


def check(conn: apsw.Connection, path: str, *, read_only: bool) -> None:
    """Raises NotAStoreError, NewerSchemaError or UnsafeStoreError unless this layout can
    be used."""
    kind = conn.pragma("application_id")
    if kind == WITHOUT_TEXT and not read_only:
        problem = "it is a copy without text, which can only be read"
        raise UnsafeStoreError(path=path, problem=problem)
    if kind not in (APPLICATION_ID, WITHOUT_TEXT):
        problem = "it is empty" if is_blank(conn) else "another program's database"
        raise NotAStoreError(path=path, problem=problem)
    found = conn.pragma("user_version")
    if found < _FIRST:
        problem = f"its layout has the number {found}, which no turnfold writes"
        raise NotAStoreError(path=path, problem=problem)
    if found <= SCHEMA:
        if not read_only:  # a reader tells as much as it can
            _check_tables(conn, path)
        return
    if read_only and _readable_by(conn) <= SCHEMA:
        return
    raise NewerSchemaError(path=path, found=found, known=SCHEMA)


def _check_tables(conn: apsw.Connection, path: str) -> None:
    """Raises NotAStoreError if a table or an index is not the one that `create` makes.
    Further ones are allowed. Statements would fail or, without a unique index, take
    what they must refuse; a worker would find out after its first writes."""
    found = {sql for (sql,) in conn.execute("SELECT sql FROM sqlite_schema")}
    for table in (*_TABLES, *digest.TABLES):
        if _bare(table) not in found:
            kind, name = re.findall(r"(TABLE|INDEX) (\w+)", table)[0]
            problem = f"another program changed or removed its {kind.lower()} {name}"
            raise NotAStoreError(path=path, problem=problem)


def _readable_by(conn: apsw.Connection) -> int:
    try:
        value = conn.execute("SELECT readable_by FROM layout").get
    except apsw.SQLError:  # the newer layout keeps it elsewhere
        return SCHEMA + 1
    return value if isinstance(value, int) else SCHEMA + 1

"""The images that a disk may hold after the power failed: every write since its last sync may be
there, missing, or there in part.

A sync of a file makes its bytes durable, and the name of a new file, too; SQLite syncs
the folder with the first sync of a new journal or log, which makes every name in it
durable. All other writes are pending: an image takes none of them, all of them, the
first few operations, or any 512-byte sectors.
"""

from collections.abc import Iterator, Mapping
from random import Random

from attrs import define, field, frozen

SECTOR = 512
SORTS = 5
Image = Mapping[str, bytes]


@frozen
class Op:
    """One operation on a file, or (`kind` "mark") a moment of the world."""

    kind: str  # create, write, truncate, delete, sync or mark
    name: str = ""
    offset: int = 0  # for truncate: the size; for delete: 1 if the folder was synced
    data: bytes = b""
    world: object = None


@define
class Surface:
    """The disk while operations pass by: durable and pending writes."""

    durable: dict[str, bytes] = field(factory=dict)
    pending: list[Op] = field(factory=list)

    def feed(self, op: Op) -> None:
        if op.kind == "sync":
            if op.name.endswith(("-journal", "-wal")) and self._is_new(op.name):
                self._sync_folder()
            mine = [p for p in self.pending if p.name == op.name]
            self.pending = [p for p in self.pending if p.name != op.name]
            self.durable = _applied(self.durable, mine)
        elif op.kind == "delete" and op.offset:
            self.pending = [p for p in self.pending if p.name != op.name]
            self.durable = {n: d for n, d in self.durable.items() if n != op.name}
        elif op.kind != "mark":
            self.pending.append(op)

    def _is_new(self, name: str) -> bool:
        return any(p.kind == "create" and p.name == name for p in self.pending)

    def _sync_folder(self) -> None:
        names = [p for p in self.pending if p.kind in ("create", "delete")]
        self.durable = _applied(self.durable, names)
        gone: set[str] = set()
        kept = []
        for op in reversed(self.pending):  # writes to a file that is gone
            if op.kind == "delete":
                gone.add(op.name)
            elif op.kind != "create" and op.name not in gone:
                kept.append(op)
        self.pending = kept[::-1]

    @property
    def sorts(self) -> int:
        """How many sorts of images there are to make here."""
        return SORTS if self.pending else 1

    def image(self, sort: int, random: Random) -> dict[str, bytes]:
        """0 nothing that was not synced, 1 everything, 2 a random beginning, 3 random
        sectors, 4 all but the end of the last write."""
        pending = self.pending
        match sort:
            case 0:
                taken = []
            case 1:
                taken = pending
            case 2:
                taken = pending[: random.randrange(len(pending))]
            case 3:
                taken = list(_sectors(pending, random))
            case _:
                taken = [*pending[:-1], *_torn(pending[-1], random)]
        return _applied(self.durable, taken)


def _applied(durable: Mapping[str, bytes], ops: list[Op]) -> dict[str, bytes]:
    """A write to a file is lost if the name of the file did not survive."""
    files: dict[str, bytearray] = {}
    out = dict(durable)
    for op in ops:
        if op.kind == "delete":
            out.pop(op.name, None)
            files.pop(op.name, None)
            continue
        if op.kind == "create":
            out.setdefault(op.name, b"")
        if op.name in out:
            _apply(files.setdefault(op.name, bytearray(out[op.name])), op)
    return {**out, **{name: bytes(content) for name, content in files.items()}}


def _apply(content: bytearray, op: Op) -> None:
    if op.kind == "write":
        gap = op.offset - len(content)
        if gap > 0:
            content.extend(bytes(gap))
        content[op.offset : op.offset + len(op.data)] = op.data
    elif op.kind == "truncate":
        del content[op.offset :]
        content.extend(bytes(max(0, op.offset - len(content))))


def _sectors(pending: list[Op], random: Random) -> Iterator[Op]:
    """Any of the sectors, in any combination."""
    for op in pending:
        if op.kind == "write":
            yield from (piece for piece in _pieces(op) if random.random() < 0.5)
        elif random.random() < 0.5:
            yield op


def _torn(op: Op, random: Random) -> Iterator[Op]:
    """The last write was cut off behind some sector."""
    if op.kind != "write":
        return
    pieces = list(_pieces(op))
    yield from pieces[: random.randrange(len(pieces))]


def _pieces(op: Op) -> Iterator[Op]:
    start, end = op.offset, op.offset + len(op.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        piece = op.data[start - op.offset : stop - op.offset]
        yield Op("write", op.name, start, piece)
        start = stop

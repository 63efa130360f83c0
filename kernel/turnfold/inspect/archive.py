"""An archive: streams that were taken out of a store, as compressed lines (specs/keep.md).

The first line is the manifest. The lines after it are those of an export with bodies,
in the order of their positions (specs/log-format.md). A file is written under another
name and renamed when it is durable: so a file with an archive's name is complete.
"""

import gzip
import os
import shutil
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from turnfold._log import canonical
from turnfold._log.canonical import Record
from turnfold._state.fold import fold, summarize
from turnfold.errors import DamagedError, DiskError, InvalidInputError, NotAStoreError
from turnfold.inspect import export
from turnfold.ports.store import Body, Summary

SUFFIX = ".ndjson.gz"
_PART = ".part"
_VERSION = 1
_BLOCK = 1 << 20
Groups = Mapping[str, Mapping[str, int]]


@frozen(kw_only=True)
class Manifest:
    """`store`: the id of the store that the streams come from. `made`: wall ms. `by`: a
    person. `groups`: by each turn, and each entry without a turn, its streams with their
    versions. `text`: the bodies are there. `digest`: SHA-256 of the lines that follow."""

    store: str
    made: int
    by: str
    groups: Groups
    records: int
    text: bool
    digest: str
    archive: int = _VERSION


@frozen(kw_only=True)
class Content:
    """The whole content of an archive. `records`: in the order of their positions.
    `summaries`: as a store would have them."""

    manifest: Manifest
    records: Sequence[Record]
    summaries: Sequence[Summary]
    bodies: Sequence[Body]
    streams: Mapping[str, Sequence[Record]]


def is_archive(path: str | Path) -> bool:
    """Does the path have the name of an archive?"""
    return str(path).endswith(SUFFIX)


# --- writing ---


def _parts(folder: Path) -> tuple[Path, Path]:
    return folder / f"archive{_PART}", folder / f"archive.lines{_PART}"


def clear(folder: Path) -> None:
    """Remove the unfinished files of a killed run. Raises DiskError."""
    try:
        for left in _parts(folder):
            left.unlink(missing_ok=True)
    except OSError as exc:
        raise DiskError(path=str(folder), problem=str(exc)) from exc


async def write(
    folder: Path, facts: Mapping[str, Any], lines: AsyncIterator[bytes]
) -> tuple[Path, Manifest]:
    """Write a new archive in a folder; it is durable when this returns. `facts`: the
    fields of its manifest without `digest`. Raises DiskError."""
    whole, rest = _parts(folder)
    try:
        digest = await _lines(rest, lines)
        manifest = Manifest(**facts, digest=digest)
        _put_together(whole, rest, manifest)
        name = f"{manifest.store[:8]}-{digest[:16]}{SUFFIX}"
        whole.replace(folder / name)
        _sync(folder)
        rest.unlink()
    except OSError as exc:
        raise DiskError(path=str(folder), problem=str(exc)) from exc
    return folder / name, manifest


async def _lines(path: Path, lines: AsyncIterator[bytes]) -> str:
    digest = sha256()
    with path.open("xb") as file, _packed(file) as packed:
        async for line in lines:
            digest.update(line + b"\n")
            packed.write(line + b"\n")
    return digest.hexdigest()


def _packed(file: Any) -> gzip.GzipFile:
    """A gzip file without a time, so that equal content has equal bytes."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)


def _put_together(whole: Path, rest: Path, manifest: Manifest) -> None:
    """Join both files: gzip files one after the other are one gzip file."""
    with whole.open("xb") as file:
        with _packed(file) as packed:
            packed.write(canonical.dumps(_plain(manifest)) + b"\n")
        with rest.open("rb") as lines:
            shutil.copyfileobj(lines, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())


def _plain(manifest: Manifest) -> dict[str, Any]:
    groups = [[list(row) for row in g.items()] for g in manifest.groups.values()]
    return asdict(manifest, recurse=False) | {"groups": groups}


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ---


def manifests(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    """The archives of a folder. Raises DamagedError, NotAStoreError, DiskError."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with _opened(path) as file:
            yield path, _manifest(path, file)


def read(path: Path) -> Content:
    """Read an archive and check it against its manifest. Raises DamagedError for an
    incomplete or altered one, NotAStoreError for another file, DiskError."""
    with _opened(path) as file:
        manifest = _manifest(path, file)
        digest, records, bodies = sha256(), list[Record](), list[Body]()
        try:
            for line in file:
                digest.update(line)
                record, named = _line(line.rstrip(b"\n"))
                records.append(record)
                bodies += named
        except (EOFError, OSError, zlib.error, InvalidInputError) as exc:
            raise _damaged(path, f"it cannot be read to its end: {exc}") from exc
    if digest.hexdigest() != manifest.digest:
        raise _damaged(path, "its lines are not those that its manifest names")
    streams = _by_stream(records)
    _compare(path, manifest, records, streams)
    return Content(
        manifest=manifest,
        records=records,
        summaries=[_summary(rows) for rows in streams.values()],
        bodies=bodies,
        streams=streams,
    )


def _opened(path: Path) -> gzip.GzipFile:
    try:
        return gzip.open(path, "rb")
    except OSError as exc:
        raise DiskError(path=str(path), problem=str(exc)) from exc


def _manifest(path: Path, file: gzip.GzipFile) -> Manifest:
    try:
        value = canonical.loads(file.readline().rstrip(b"\n"))
        groups = [dict(map(tuple, group)) for group in value.pop("groups")]
        manifest = Manifest(**value, groups={next(iter(g)): g for g in groups})
    except (EOFError, zlib.error) as exc:
        raise _damaged(path, f"it has no whole manifest: {exc}") from exc
    except (OSError, InvalidInputError, *_NO_MANIFEST) as exc:
        problem = "it does not begin with the manifest of an archive"
        raise NotAStoreError(path=str(path), problem=problem) from exc
    if manifest.archive != _VERSION:
        problem = f"it is an archive of version {manifest.archive}, not {_VERSION}"
        raise NotAStoreError(path=str(path), problem=problem)
    return manifest


_NO_MANIFEST = (AttributeError, KeyError, StopIteration, TypeError, ValueError)


def _damaged(path: Path, problem: str) -> DamagedError:
    return DamagedError(path=str(path), problem=problem)


def _line(line: bytes) -> tuple[Record, list[Body]]:
    record = export.load(line)
    return record, [*export.bodies_in(line)]


def _by_stream(records: Iterable[Record]) -> dict[str, list[Record]]:
    streams: dict[str, list[Record]] = {}
    for record in records:
        streams.setdefault(record.stream, []).append(record)
    return streams


def _compare(
    path: Path,
    manifest: Manifest,
    records: Sequence[Record],
    streams: Mapping[str, Sequence[Record]],
) -> None:
    named = {k: v for group in manifest.groups.values() for k, v in group.items()}
    positions = [record.position for record in records]
    if positions != sorted(set(positions)) or len(positions) != manifest.records:
        raise _damaged(path, "its records are not in their order, or not as many")
    if named != {name: rows[-1].version for name, rows in streams.items()}:
        raise _damaged(path, "its streams are not those that its manifest names")


def _summary(records: Sequence[Record]) -> Summary:
    """Raises CorruptLogError."""
    state = fold(records)
    assert state is not None  # noqa: S101  there is a record
    return summarize(state)

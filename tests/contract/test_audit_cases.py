"""The audit of a store whose files somebody tampered with: nothing passes in silence, and
what was not checked is said."""

import asyncio
import json
import os
import random
import shutil
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

from turnfold.audit import Rule, audit_log
from turnfold_cli import app
from turnfold_model.testing.gateway import Gateway, in_file, route, spin

from .test_audit_store import (  # noqa: F401  two of them are fixtures
    audited_file,
    damage,
    path,
    whole,
)

DAY_MS = 24 * 3_600_000


def rules(path: Path, **more: object) -> set[Rule]:  # noqa: F811  the fixture's value
    return {finding.rule for finding in audited_file(path, **more).findings}


def grown(path: Path, entries: int) -> None:  # noqa: F811  as above
    async def grow() -> None:
        gateway = Gateway(store=in_file(path))
        kernel = await gateway.start()
        for number in range(entries):
            await kernel.enqueue(route(f"d{number}"), "x")
        await spin()
        await gateway.end()

    asyncio.run(grow())


def test_a_store_as_the_kernel_leaves_it_passes(path: Path) -> None:  # noqa: F811
    report = audited_file(path)
    assert report.passed, report.first


@pytest.mark.case("X05")
def test_a_log_that_was_wiped_does_not_pass(path: Path) -> None:  # noqa: F811
    for table in ("log", "stream", "dedupe"):
        damage(path, f"DELETE FROM {table}")
    assert rules(path) >= {Rule.MARK, Rule.BODY}


@pytest.mark.case("X05")
def test_an_older_copy_under_a_newer_mark_does_not_pass(
    path: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    shutil.copy(path, tmp_path / "older.db")
    grown(path, 5)
    assert audited_file(path).passed
    shutil.copy(tmp_path / "older.db", path)
    report = audited_file(path)
    assert [finding.rule for finding in report.findings] == [Rule.MARK]
    assert "an older copy" in str(report.first)


@pytest.mark.case("X05")
def test_another_store_under_this_mark_does_not_pass(
    path: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.db"
    grown(other, 1)
    shutil.copy(other, path)
    assert Rule.MARK in rules(path)


@pytest.mark.case("X05")
def test_a_copy_that_a_worker_has_taken_up_passes(
    path: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The log itself tells that it was restored."""
    shutil.copy(path, tmp_path / "older.db")
    grown(path, 5)
    shutil.copy(tmp_path / "older.db", path)
    grown(path, 1)
    report = audited_file(path)
    assert report.passed, report.first


@pytest.mark.case("X06")
def test_a_dedupe_key_without_an_event_is_found(path: Path) -> None:  # noqa: F811
    damage(
        path,
        "INSERT INTO dedupe SELECT replace(key, '/0/', '/9/'), stream FROM dedupe"
        " WHERE key LIKE '%/0/%'",
    )
    assert rules(path) == {Rule.KEY}


@pytest.mark.case("X06")
def test_an_event_without_its_dedupe_key_is_found(path: Path) -> None:  # noqa: F811
    damage(path, "DELETE FROM dedupe WHERE key = (SELECT min(key) FROM dedupe)")
    assert rules(path) == {Rule.KEY}


@pytest.mark.case("X07")
@pytest.mark.case("Y16")
def test_an_answer_of_which_nobody_heard_again_is_not_settled(
    path: Path,  # noqa: F811
) -> None:
    """The last entry of this store is in doubt. It is due, and later it is overdue."""
    assert audited_file(path, settled_at=0).passed
    report = audited_file(path, settled_at=2**50)
    assert [finding.rule for finding in report.findings] == [Rule.SETTLED]
    assert "expired" in str(report.first)


@pytest.mark.case("X08")
def test_a_pass_lists_the_checks_that_were_not_made(path: Path) -> None:  # noqa: F811
    def words(*arguments: str) -> tuple[int, str]:
        asked = ["audit", str(path), *arguments]
        done = CliRunner().invoke(app(asked), asked)
        return done.exit_code, " ".join(done.stdout.split())

    code, shown = words()
    assert code == 0
    assert shown.count("not checked: ") == 4
    for option in ("--witness", "--head", "--settled", "the owner"):
        assert option in shown
    assert "--no-bodies" not in shown
    code, shown = words("--no-bodies", "--no-integrity")
    assert "without --no-bodies" in shown
    assert "without --no-integrity" in shown
    _, told = words("--json")
    assert len(json.loads(told)["unchecked"]) == 4


@pytest.mark.case("X08")
def test_a_store_without_a_mark_says_that_an_older_copy_would_not_show(
    path: Path,  # noqa: F811
) -> None:
    Path(f"{path}.mark").unlink()
    assert any("no mark" in text for text in audited_file(path).unchecked)


@pytest.mark.case("X08")
def test_an_export_says_that_the_store_was_not_looked_at() -> None:
    assert any("audit the store itself" in text for text in audit_log([]).unchecked)


@pytest.mark.case("X09")
def test_the_audit_of_a_file_with_pages_of_noise_goes_on_and_tells(
    path: Path,  # noqa: F811
) -> None:
    grown(path, 200)
    events = audited_file(path).events
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    data, dice = bytearray(path.read_bytes()), random.Random(1)
    for _ in range(3):
        place = 4096 * dice.randrange(4, len(data) // 4096)
        data[place : place + 4096] = dice.randbytes(4096)
    path.write_bytes(data)
    report = audited_file(path, limit=10_000)
    assert Rule.FILE in {finding.rule for finding in report.findings}
    assert 0 < report.events <= events


@pytest.mark.case("X09")
def test_the_audit_of_half_a_file_tells_and_ends(path: Path) -> None:  # noqa: F811
    grown(path, 200)
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    os.truncate(path, path.stat().st_size // 2)
    words = ["audit", str(path)]
    done = CliRunner().invoke(app(words), words)
    assert done.exit_code != 0
    assert done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)

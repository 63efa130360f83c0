"""Power that fails at any moment under the real store, and disks that fail.

The full figures are the command's; here is a life of each sort, and the proof that the
harness bites.
"""

import os
from collections.abc import Callable, Iterator

import apsw
import pytest

from turnfold.ports.store import now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.__main__ import main
from turnfold_model.checks.store_kit import put
from turnfold_model.crash.scenario import Scenario
from turnfold_model.powerloss.disk import SORTS, Op, Surface
from turnfold_model.powerloss.harness import (
    PATH,
    SCENARIOS,
    VFS,
    Harness,
    Losses,
    chance,
)

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
ROWS = SCENARIOS if LONG else SCENARIOS[:3]


@pytest.fixture
def harness() -> Iterator[Harness]:
    made = Harness()
    yield made
    made.close()


def _until(harness: Harness, images: int) -> None:
    """Enough is enough, in the fast profile."""
    found = harness.found
    harness.until = lambda: not LONG and found.images + found.faults >= images


@pytest.mark.case("A06", "F08", "Q03")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_power_loss_loses_or_doubles_anything(row, harness: Harness) -> None:
    _until(harness, 250)
    harness.lose_power(row, "test", nested=1)
    assert harness.found.violations == []
    assert harness.found.nested > 50


@pytest.mark.case("Q03")
def test_no_failing_operation_loses_or_doubles_anything(harness: Harness) -> None:
    harness.fail_everywhere(SCENARIOS[1], "test", stride=1 if LONG else 17)
    assert harness.found.violations == []
    assert harness.found.faults > 60


def test_without_full_syncs_messages_are_lost_and_sent_twice() -> None:
    """The harness proves itself: what specs/design.md forbids is seen to break."""
    keyed, _, blind = SCENARIOS[:3]
    assert _without_syncs(keyed, lambda found: found.losses).losses > 0
    assert _without_syncs(blind, lambda found: found.double_sends).double_sends > 0


def _without_syncs(scenario: Scenario, seen: Callable[[Losses], int]) -> Losses:
    harness = Harness(level="NORMAL")
    harness.until = lambda: seen(harness.found) > 0
    try:
        harness.lose_power(scenario, "test", nested=0)
    finally:
        harness.close()
    return harness.found


def test_the_log_is_a_wal_also_on_the_simulated_disk(harness: Harness) -> None:
    """A disk without shared memory gets another journal, silently, unless asked."""
    store = SqliteStore(PATH, vfs=VFS, exclusive=True)
    now(store.open())
    now(put(store, "entry:a"))
    names = set(harness.disk.files)
    now(store.close())
    assert names == {PATH, f"{PATH}-wal"}
    plain = apsw.Connection(f"{PATH}2", vfs=VFS)
    assert plain.pragma("journal_mode", "WAL") == "delete"
    plain.close()


def test_only_what_was_synced_is_sure_to_be_there() -> None:
    surface, dice = Surface(), chance("1")
    for op in (
        Op("create", "f"),
        Op("write", "f", 0, b"a" * 600),
        Op("sync", "f"),
        Op("write", "f", 500, b"b" * 600),
    ):
        surface.feed(op)
    images = [surface.image(sort, dice)["f"] for sort in range(SORTS)]
    assert surface.sorts == SORTS
    assert images[0] == b"a" * 600
    assert images[1] == b"a" * 500 + b"b" * 600
    for image in images:
        assert set(image[:500]) == set(b"a")


def test_the_first_sync_of_a_new_journal_makes_the_names_of_its_folder_durable() -> (
    None
):
    surface = Surface()
    for op in (Op("create", "f"), Op("create", "f-wal"), Op("write", "f", 0, b"x")):
        surface.feed(op)
    assert surface.durable == {}
    surface.feed(Op("sync", "f-wal"))
    assert surface.durable == {"f": b"", "f-wal": b""}
    surface.feed(Op("delete", "f-wal", 0))
    assert "f-wal" in surface.durable  # until the folder is synced


def test_the_command_reports_images_recoveries_and_its_proof(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["powerloss", "--json", "--seconds", "4", "--jobs", "1", "--lives", "1"]
    # not 0 if the seconds were over before NORMAL was caught, which has its own test
    assert main(words) in (0, 1, 3)
    shown = capsys.readouterr()
    for word in ("images", "nested", "violations", "normal_double_sends"):
        assert f'"{word}": ' in shown.out
    assert '"violations": 0' in shown.out
    assert "normal" in shown.err

"""The world model on small worlds: it holds, and it notices what is taken away."""

import pytest

from turnfold_model.protocol_model import matrix
from turnfold_model.protocol_model.explorer import always_ends, explore
from turnfold_model.protocol_model.words import Config


def by_name(configs: list[Config]) -> list:
    return [pytest.param(config, id=config.name) for config in configs]


SMALL = [*matrix.kept(), *matrix.guarded()]


@pytest.mark.parametrize("config", by_name(SMALL))
def test_a_small_world_holds(config):
    result = explore(config)
    assert (result.broken, result.complete) == ("", True)


@pytest.mark.parametrize("config", by_name(SMALL))
def test_nothing_goes_round_in_circles(config):
    assert always_ends(config)


@pytest.mark.case("R06")
@pytest.mark.parametrize("config", by_name(matrix.dropped()))
def test_each_assumption_is_needed(config):
    assert explore(config).broken
    worst = explore(config, ignore=frozenset({"INV-12"}))
    # A late preview takes the answer off the screen; without the others it comes twice.
    assert worst.broken == ("INV-2" if config.assume.quiet else "INV-4")


EXPECTED = {
    "write_ahead": "INV-3",
    "parts": "INV-1",
    "blind": "INV-2",
    "proof": "INV-4",
    "lane": "INV-8",
    "stale_run": "INV-9",
    "owed": "INV-10",
    "reopen": "INV-10",
    "abort": "INV-12",
    "one_commit": "INV-14",
    "recovery": "INV-14",
    "suspend": "INV-2",
    "edit": "INV-2",
    "remade": "INV-2",
    "seal": "INV-4",
}


@pytest.mark.parametrize("config", by_name(matrix.unguarded()))
def test_each_guard_is_needed(config):
    assert explore(config).broken == EXPECTED.get(config.without, "INV-12")


def test_the_shortest_way_to_a_violation_is_told():
    config = next(c for c in matrix.dropped() if "key" in c.name)
    result = explore(config)
    said = [line.partition(":")[0] for line in result.trace[1:]]
    assert said[0] == "attempted"
    assert said[-1] == "accepted"
    assert said.count("send") == 2


def test_a_search_is_the_same_every_time():
    config = matrix.kept()[0]
    one, two = explore(config), explore(config)
    assert (one.distinct, one.edges, one.depth) == (two.distinct, two.edges, two.depth)


def test_a_search_whose_time_is_up_says_so():
    result = explore(matrix.MATRIX[0], deadline=0.0)
    assert not result.complete
    assert not result.broken


def test_names_are_unique():
    configs = [
        *SMALL,
        *matrix.MATRIX,
        *matrix.dropped(),
        *matrix.unguarded(),
    ]
    assert len({c.name for c in configs}) == len(configs)

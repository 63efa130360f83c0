"""The model of a store that several hosts share: it holds, and its rules are needed."""

from dataclasses import fields, replace

import pytest

from turnfold_model.ownership_model import finding, watching
from turnfold_model.ownership_model.command import search, search_side
from turnfold_model.ownership_model.world import Class, Rules
from turnfold_model.tla.tlc_tasks import LEASE_BREAKS, LEASE_RULES


def test_one_message_is_one_turn_in_every_state() -> None:
    result = search("inbox", Rules(), "inbox")
    assert result.complete
    assert not result.broken
    assert result.states > 10_000


@pytest.mark.parametrize(
    ("kind", "rule", "broken"),
    [
        ("lookup", "token_checked", "O4"),
        ("lookup", "token_after_unknown_fate", "O4"),
        ("lookup", "token_after_take", "O1"),
        ("lookup", "token_after_hand_over", "O4"),
        ("lookup", "asked_tokens_are_known", "O11"),
        ("inbox", "promised_keys_are_taken", "O9"),
        ("inbox", "logged_keys_are_taken", "O9"),
        ("inbox", "leaves_the_inbox", "O9"),
    ],
)
def test_a_rule_that_is_taken_away_is_missed(
    kind: Class, rule: str, broken: str
) -> None:
    assert rule in {field.name for field in fields(Rules)}
    result = search(kind, replace(Rules(), **{rule: False}), rule)
    assert result.broken.startswith(broken)
    assert result.trace
    (guard,) = (name for name, same in LEASE_RULES.items() if same == rule)
    assert LEASE_BREAKS[guard] == broken, "specs/Lease.tla says the same"


def test_each_rule_is_a_guard_of_the_tla_module() -> None:
    assert sorted(LEASE_RULES.values()) == sorted(field.name for field in fields(Rules))


def test_what_goes_between_shards_is_neither_lost_nor_doubled() -> None:
    result = search_side("between shards")
    assert result.complete
    assert not result.broken


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("message_before_cursor", "R1"),
        ("sources_have_keys", "R2"),
        ("one_table_of_keys", "R3"),
        ("number_is_fixed", "R4"),
        ("replies_stay", "R5"),
    ],
)
def test_a_rule_between_shards_that_is_taken_away_is_missed(
    rule: str, broken: str
) -> None:
    result = search_side("between shards", rule)
    assert result.broken.startswith(broken)


def test_a_watchdog_ends_nobody_but_a_worker_whose_lease_is_over() -> None:
    result = search_side("watchdog")
    assert result.complete
    assert not result.broken


def test_each_rule_of_the_watchdog_is_missed() -> None:
    missed = {
        rule.name: search_side("watchdog", rule.name).broken[:2]
        for rule in fields(watching.Rules)
    }
    assert missed == {
        **dict.fromkeys(("primary_asked", "every_life_asked"), "W2"),
        **dict.fromkeys(("start_compared", "held_by_handle"), "W1"),
        "held_before_compared": "W1",
        "gone_before_word": "W3",
    }


def test_processes_find_the_primary_and_follow_it() -> None:
    result = search_side("way to the primary")
    assert result.complete
    assert not result.broken


def test_each_rule_of_the_way_to_the_primary_is_missed() -> None:
    missed = {
        rule.name: search_side("way to the primary", rule.name).broken[:2]
        for rule in fields(finding.Rules)
    }
    assert missed == {
        **dict.fromkeys(("fenced", "synchronous"), "P1"),
        **dict.fromkeys(("never_back", "later_wins"), "P2"),
        **dict.fromkeys(("all_asked", "looks_around"), "P3"),
        **dict.fromkeys(("primary_alone", "one_way"), "P4"),
    }

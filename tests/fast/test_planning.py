"""Splitting text: nothing lost but white space at a cut, nothing too long."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from turnfold import Capabilities, File, Kind, Native, Route, Text
from turnfold._decide.plan import MEASURES, make_plan, split_text
from turnfold.errors import ContractError
from turnfold.ports.channel import PlannedPart

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
WORDS = st.text(st.sampled_from("ab \n\té😀"), max_size=200)


def solid(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=300, deadline=None)
@given(text=TEXT | WORDS, limit=st.integers(4, 40), unit=st.sampled_from([*MEASURES]))
@example(text=" " * 50 + "a", limit=4, unit="chars")
@example(text="😀" * 9, limit=4, unit="utf16")
def test_chunks_fit_and_keep_every_visible_character(
    text: str, limit: int, unit: str
) -> None:
    chunks = list(split_text(text, limit, unit))
    assert solid("".join(chunks)) == solid(text)
    for chunk in chunks:
        assert chunk.strip()  # an invisible part would be a message with nothing in it
        assert MEASURES[unit](chunk) <= limit


@given(text=TEXT)
def test_without_a_limit_text_goes_as_it_is(text: str) -> None:
    assert list(split_text(text, None)) == ([text] if text.strip() else [])


@given(text=WORDS, limit=st.integers(1, 300))
def test_what_fits_is_not_touched(text: str, limit: int) -> None:
    if len(text) <= limit and text.strip():
        assert list(split_text(text, limit)) == [text]


def test_a_line_end_is_a_better_cut_than_a_space() -> None:
    assert list(split_text("aa bb\ncc dd", 9)) == ["aa bb", "cc dd"]
    assert list(split_text("aaaa bbbb", 4)) == ["aaaa", "bbbb"]
    assert list(split_text("abcdefgh", 3)) == ["abc", "def", "gh"]


@pytest.mark.parametrize("unit", [*MEASURES])
def test_ten_megabytes_are_split_in_time(unit: str) -> None:
    text = "lorem ipsum " * 850_000
    begun = time.perf_counter()
    chunks = list(split_text(text, 4096, unit))
    assert time.perf_counter() - begun < 5  # quadratic took minutes
    assert len(chunks) == pytest.approx(len(text) / 4096, rel=0.05)


def test_parts_have_unique_keys_that_depend_on_names_alone() -> None:
    route = Route(channel="t", conversation="42")
    capabilities = Capabilities(limit=4, key_length=16)

    def keys(entry: str, text: str) -> list[str]:
        payloads = [Text(text), File(data=b"x", name="n"), Native({})]
        plan = make_plan(None, capabilities, payloads, route, Kind.FINAL, entry)
        return [part.key for part in plan.parts]

    first = keys("entry:1", "aaaa bbbb")
    assert len(set(first)) == 4
    assert keys("entry:1", "cccc dddd") == first
    assert not set(keys("entry:2", "aaaa bbbb")) & set(first)
    assert all(len(k) == 16 and k.isalnum() and k.islower() for k in first)


@pytest.mark.parametrize("text", ["", " \n", "\u200b\u2060", "\u2800\u3164", "\ufe0f"])
@pytest.mark.case("V06")
def test_text_that_nobody_can_see_has_no_parts(text: str) -> None:
    route = Route(channel="t", conversation="42")
    plan = make_plan(None, Capabilities(), [Text(text)], route, Kind.FINAL, "entry:1")
    assert plan.parts == ()


@given(text=st.text(max_size=20))
def test_text_with_anything_printable_to_see_is_sent(text: str) -> None:
    route = Route(channel="t", conversation="42")
    made = make_plan(None, Capabilities(), [Text(text)], route, Kind.FINAL, "entry:1")
    if any(c.isalnum() for c in text):
        assert len(made.parts) == 1


def test_a_part_of_another_kind_than_its_payload_is_no_plan() -> None:
    """Its class would be that of a kind that the log does not show."""
    route = Route(channel="t", conversation="42")

    def planner(payload: Text, *_: object) -> list[PlannedPart]:
        return [PlannedPart(payload=payload, kind="native")]

    with pytest.raises(ContractError, match="kind of its payload"):
        make_plan(planner, Capabilities(), [Text("x")], route, Kind.FINAL, "entry:1")

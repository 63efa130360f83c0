"""The pace of the lanes behind one gate: no clock and no loop."""

from collections import deque

from turnfold import FailureClass
from turnfold._runtime.flow import Pace
from turnfold._state.fold import Gate


def _gate(until: int) -> Gate:
    return Gate(
        stream="gate:t/a",
        version=1,
        order=1,
        created=0,
        updated=0,
        closed=True,
        reason=FailureClass.RATE_LIMITED,
        until=until,
    )


def test_a_look_up_may_be_the_probe() -> None:
    pace = Pace("gate:t/a")
    assert pace.ask("one", 0, "entry:e") is None
    assert pace.ask("two", 1, "entry:f") == 60_000
    pace.closed(_gate(until=50), now=2)
    assert pace.ask("one", 3, "entry:e") is None  # the probe again, not a free pass
    assert pace.probe == "one"


def test_one_lane_goes_first_and_the_others_wait_for_its_answer() -> None:
    pace = Pace("gate:t/a")
    assert pace.ask("one", 0) is None
    assert pace.ask("one", 1) is None  # asked again by the decision itself
    assert pace.ask("two", 1) == 60_000
    assert pace.released(1) == []


def test_a_probe_of_which_nothing_is_heard_does_not_block_for_ever() -> None:
    pace = Pace("gate:t/a")
    pace.ask("one", 0)
    pace.ask("two", 1)
    assert pace.released(60_000) == ["two"]
    assert pace.ask("two", 60_000) is None


def test_the_first_pace_is_a_guess_that_refusals_double() -> None:
    pace = Pace("gate:t/a")
    pace.closed(_gate(until=50), now=0)
    assert pace.interval == 50
    pace.half_open = False
    pace.closed(_gate(until=1_000_000), now=500)
    assert pace.interval == 100  # and not the wait for each message


def test_a_refused_probe_says_nothing_of_the_pace() -> None:
    pace = Pace("gate:t/a")
    for n in range(20):
        pace.closed(_gate(until=50 + n * 100), now=n * 100)
    assert pace.interval == 50


def _at_pace(interval: float, *accepted: int) -> Pace:
    return Pace(
        "gate:t/a",
        half_open=False,
        interval=interval,
        accepted=deque(accepted, maxlen=1_000),
    )


def test_a_burst_before_the_first_refusal_measures_no_rate() -> None:
    pace = _at_pace(0.0, *range(50))
    pace.closed(_gate(until=150), now=50)
    assert (pace.interval, pace.measured) == (100, False)


def test_a_rate_is_measured_from_one_refusal_to_the_next() -> None:
    """A bucket was empty at both, so all that it took in between is its rate: also a
    burst that it had room for."""
    pace = _at_pace(20.0, *range(3_950, 4_000))
    pace.closed(_gate(until=4_020), now=4_000)
    assert (pace.interval, pace.measured) == (4_000 / 50 * 1.02, True)
    pace.half_open = False
    pace.accepted.extend(range(5_000, 5_010))
    pace.closed(_gate(until=5_100), now=5_000)
    assert pace.interval == 1_000 / 10 * 1.02


def test_near_a_rate_that_was_measured_success_makes_little_faster() -> None:
    guess, measured = _at_pace(100.0), _at_pace(100.0)
    measured.measured = True
    for pace in (guess, measured):
        for _ in range(70):
            pace.flying.add("one")
            pace._answered("one", 0)
    assert guess.interval < 20
    assert measured.interval > 70


def test_no_pace_is_forgotten_while_lanes_wait_for_it() -> None:
    pace = _at_pace(1.0)
    for waiting, interval in ((True, 1.0), (False, 0.0)):
        pace.waiting = {"two": None} if waiting else {}
        pace.flying.add("one")
        pace._answered("one", 0)
        assert pace.interval == interval


def test_the_next_lane_keeps_its_distance_from_the_probe() -> None:
    pace = Pace("gate:t/a")
    pace.closed(_gate(until=50), now=0)
    assert pace.ask("one", 50) is None
    pace.flying.add("one")
    pace.ask("two", 51)
    pace._answered("one", 60)
    assert pace.released(61) == []
    assert pace.released(110) == ["two"]


def test_lanes_are_let_go_by_the_age_of_their_entries() -> None:
    pace = Pace("gate:t/a", half_open=False, interval=100, next_at=100)
    for lane, order in (("young", 9), ("old", 3), ("middle", 5)):
        assert pace.ask(lane, 0, order=order) is not None
    assert [pace.released(now) for now in (100, 200, 300)] == [
        ["old"],
        ["middle"],
        ["young"],
    ]

"""The pace of the lanes behind one gate: no clock and no loop."""

import pytest

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


def test_the_first_pace_is_a_guess() -> None:
    """A platform that can count says when it has room for the next message."""
    for wait, interval in ((50, 50), (30_000, 1_000)):
        pace = Pace("gate:t/a")
        pace.closed(_gate(until=wait), now=0)
        assert pace.interval == interval


def test_a_refused_probe_says_nothing_of_the_pace() -> None:
    pace = Pace("gate:t/a")
    for n in range(20):
        pace.closed(_gate(until=50 + n * 100), now=n * 100)
    assert pace.interval == 50


def _known(cost: int) -> Pace:
    """A pace of 10 a second; the last refusal cost so much. It is open since then."""
    pace = Pace("gate:t/a", half_open=False, interval=100.0, known=True)
    pace.cost = pace.opened = cost
    return pace


def _refused(pace: Pace, now: int) -> float:
    pace.closed(_gate(until=now + 2_000), now=now)
    return pace.interval


def test_a_pace_that_is_refused_again_at_once_was_far_too_fast() -> None:
    assert _refused(_known(2_000), 5_000) == 120


def test_a_pace_that_has_paid_for_the_last_refusal_was_hardly_too_fast() -> None:
    assert _refused(_known(2_000), 45_000) == 105


def test_a_pace_is_no_slower_than_what_was_taken() -> None:
    pace = _known(2_000)
    pace.accepted, pace.counted = 46, 0
    assert _refused(pace, 5_000) == 5_000 / 46


def test_a_gate_that_opens_knows_what_its_refusal_has_cost() -> None:
    pace = Pace("gate:t/a")
    pace.closed(_gate(until=2_000), now=0)
    pace.closed(_gate(until=5_000), now=2_100)  # the probe was refused, too
    assert pace.ask("one", 90_000) is None  # there was nothing to send for long
    pace.flying.add("one")
    pace._answered("one", 90_300)
    assert (pace.cost, pace.opened) == (5_000, 90_300)


class _Bucket:
    """Takes `rate` a second and saves nothing up. Asks for `wait` ms, or for the time
    until it has room."""

    def __init__(self, rate: float, wait: int | None) -> None:
        self.rate, self.wait = rate, wait
        self.free = 0.0
        self.taken, self.refused = list[int](), list[int]()

    def wants(self, now: int) -> int:
        """0: taken. Else for how long the caller should wait."""
        if now < self.free:
            self.refused.append(now)
            return int(self.free - now) + 1 if self.wait is None else self.wait
        self.taken.append(now)
        self.free = now + 1_000 / self.rate
        return 0

    def used(self, begin: int, end: int) -> float:
        taken = sum(begin <= at < end for at in self.taken)
        return taken / (self.rate * (end - begin) / 1_000)


def _play(bucket: _Bucket, pace: Pace, begin: int, end: int) -> None:
    """One lane that always has something to send, and no time on the way."""
    now = begin
    while now < end:
        if pace.ask("one", now) is not None:
            now = int(pace.next_at) + 1
            pace.released(now)
        pace.granted.discard("one")
        pace.flying = {"one"}
        wait = max(bucket.wants(now), 0)
        if wait:
            wait = max(wait, 100)  # the least wait of a gate
            pace.closed(_gate(until=now + wait), now)
            now += wait
        else:
            pace._answered("one", now)
            now += 1
    pace.flying = set()


@pytest.mark.case("S01")
@pytest.mark.parametrize("wait", [1_000, 2_000, 3_000, 10_000])
@pytest.mark.parametrize("rate", [1, 5, 10, 30, 50])
def test_where_a_refusal_costs_seconds_it_is_risked_rarely(
    rate: int, wait: int
) -> None:
    bucket, pace = _Bucket(rate, wait), Pace("gate:t/a", half_open=False)
    _play(bucket, pace, 0, 600_000)
    # The pace is known after a few refusals.
    begin = 60_000 + 10 * wait
    assert bucket.used(begin, 600_000) >= 0.8
    assert len(bucket.refused) <= 0.1 * len(bucket.taken) + 10


@pytest.mark.case("S01")
@pytest.mark.parametrize("rate", [1, 5, 10, 30, 50])
def test_where_a_refusal_costs_hardly_any_time_it_is_rare_all_the_same(
    rate: int,
) -> None:
    bucket, pace = _Bucket(rate, None), Pace("gate:t/a", half_open=False)
    _play(bucket, pace, 0, 600_000)
    assert bucket.used(60_000, 600_000) >= 0.8
    assert len(bucket.refused) <= 0.03 * len(bucket.taken) + 10


@pytest.mark.case("S01")
def test_a_limit_that_rises_is_found_and_one_that_falls_too() -> None:
    bucket, pace = _Bucket(10, 2_000), Pace("gate:t/a", half_open=False)
    _play(bucket, pace, 0, 300_000)
    bucket.rate = 50
    _play(bucket, pace, 300_000, 900_000)
    assert bucket.used(500_000, 900_000) >= 0.8
    bucket.rate = 10
    _play(bucket, pace, 900_000, 1_200_000)
    assert bucket.used(960_000, 1_200_000) >= 0.75


def test_no_pace_is_forgotten_while_lanes_wait_for_it() -> None:
    pace = _known(0)
    pace.interval = 1.0
    for waiting, interval in ((True, 1.0), (False, 0.0)):
        pace.waiting = {"two": None} if waiting else {}
        pace.flying.add("one")
        pace._answered("one", 1_000)
        assert pace.interval == interval


def test_a_pace_is_forgotten_when_its_account_is_idle_for_long() -> None:
    pace = _known(2_000)
    assert not pace.over(39_999)
    assert pace.over(40_000)
    pace.flying = {"one"}
    assert not pace.over(40_000)


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

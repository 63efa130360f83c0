"""Kernel time: follows a forward jump, never goes back, never stands still."""

from hypothesis import given
from hypothesis import strategies as st

from turnfold_model.testing.clock import START_MS, FakeClock


def test_it_follows_a_forward_jump_and_outlives_a_backward_one() -> None:
    clock = FakeClock()
    assert clock.now() == START_MS
    clock.jump_ms(5_000)
    assert clock.now() == START_MS + 5_000
    clock.jump_ms(-100_000)
    assert clock.now() == START_MS + 5_000
    clock.pass_ms(7)
    assert clock.now() == START_MS + 5_007


def test_it_never_says_less_than_was_logged() -> None:
    clock = FakeClock()
    clock.at_least(START_MS + 10)
    assert clock.now() == START_MS + 10
    clock.at_least(START_MS)
    clock.pass_ms(1)
    assert clock.now() == START_MS + 11


@given(st.lists(st.tuples(st.booleans(), st.integers(-(10**9), 10**9)), max_size=30))
def test_it_is_monotonic_through_any_jumps(moves: list[tuple[bool, int]]) -> None:
    clock = FakeClock()
    before = clock.now()
    for jump, ms in moves:
        passed = 0 if jump else abs(ms)
        clock.jump_ms(ms) if jump else clock.pass_ms(passed)
        now = clock.now()
        assert now >= before + passed
        before = now

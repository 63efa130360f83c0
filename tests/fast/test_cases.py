"""The cases that must be covered are: each id stands in a mark of some test."""


def test_every_required_case_is_covered_by_a_test(
    required_cases: set[str], marked_cases: set[str]
) -> None:
    assert not required_cases - marked_cases

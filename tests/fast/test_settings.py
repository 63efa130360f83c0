"""Settings are checked when they are made, and the error names the field."""

from typing import Any

import pytest

from turnfold import Settings
from turnfold.errors import InvalidInputError


@pytest.mark.case("Z03")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_failures", 0),
        ("max_runs", 0),
        ("max_runs", "3"),
        ("concurrent_runs", 0),
        ("concurrent_sends", True),
        ("final_ttl_ms", 0),
        ("backoff_base_ms", -1),
        ("drain_ms", 0.5),
        ("yield_closed", "no"),
        ("notices", "hello"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Settings(**{name: value})
    assert caught.value.field == name

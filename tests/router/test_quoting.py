"""Values of others are quoted in the words of JSON, not of Python."""

from __future__ import annotations

import pytest

from router.quoting import quoted


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "nothing"), (True, "true"), (0.5, "0.5"), ("x", "'x'"), ([1], "a list"), ({"a": 1}, "an object"),
        (10**30, "an integer of 100 bits"), ("y" * 100, f"'{'y' * 80}'... (100 characters)"),
    ],
)  # fmt: skip
def test_each_kind_of_value_is_quoted_in_plain_words(value: object, said: str) -> None:
    assert quoted(value) == said

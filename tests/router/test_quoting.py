"""Values of others are quoted in the words of JSON, not of Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probes.bounded.files import shown
from router.quoting import quoted


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "nothing"), (True, "true"), (0.5, "0.5"), ("x", "'x'"), ([1], "a list"), ({"a": 1}, "an object"),
        (10**30, "an integer of 100 bits"), ("y" * 100, f"'{'y' * 80}'... (100 characters)"),
        ("two\nlines", r"'two\nlines'"), (b"GET \xff", r"'GET \\xff'"),
    ],
)  # fmt: skip
def test_each_kind_of_value_is_quoted_in_plain_words(value: object, said: str) -> None:
    assert quoted(value) == said


@pytest.mark.parametrize("secret", ["sk-proj-Ab12Cd34Ef56Gh78", "AKIAIOSFODNN7EXAMPLE", "https://me:secret@host"])
@pytest.mark.parametrize("show", [quoted, shown])
def test_keys_are_masked_before_and_across_the_cut_of_a_long_text(show: Callable[[str], str], secret: str) -> None:
    for text in (secret, f"no such model: {secret}", "x " * 25 + secret + " y" * 50, "x " * 35 + secret + " y" * 50):
        said = show(text)
        assert not any(part in said for part in ("Ab12", "IOSF", "secret"))
        assert len(said) <= len("'...' (1,000 characters)") + 80
    assert "***" in show(f"no such model: {secret}")

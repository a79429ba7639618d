"""What an upstream says about when to come back is read, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from router.answering.formats.reported_errors import error_in
from router.answering.reading.retry_after import retry_after_s

NOW = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20.0),
        ("-1", 0.0),
        ("1e9", 600.0),
        ("nan", None),
        ("soon", None),
        ("Mon, 30 Nov 2026 04:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2026 04:00:00 +" + "9" * 30, None),
        ("Mon, 30 Nov " + "9" * 30 + " 04:00:00 GMT", None),
    ],
)
def test_a_header_gives_seconds_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize("value", ["später", "1\r\nx-elle-policy: other", "\ud800", "1" * 300, [5], True, None])
def test_a_reported_wait_that_is_no_header_is_left_out(value: object) -> None:
    reported = error_in({"error": {"message": "busy", "retry_after": value}})
    assert reported is not None
    assert reported.waits == {}


def test_words_with_half_of_a_surrogate_pair_can_be_sent_on() -> None:
    reported = error_in({"error": {"message": "over \ud83d", "code": "\ud800", "retry_after": 3}})
    assert reported is not None
    assert (reported.message, reported.code, reported.waits) == ("over �", None, {"retry-after": "3"})

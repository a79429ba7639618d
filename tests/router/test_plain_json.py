"""JSON that others wrote is refused if a door cannot carry it, and halves of surrogate pairs are replaced."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.plain_json import MAX_ANSWER_DEPTH, NotPlainJsonError, TextPieces, check, loads, whole_text
from router.quoting import quoted

SURROGATES = st.text(st.sampled_from("ab\ud83d\ude00\u00e9"), max_size=12)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ('{"a": 1e999}', "not finite"),
        ("1" + "0" * 400, "double"),
        ("9" * 5000, "double"),
        ("[" * 33 + "]" * 33, "33|32 levels"),
        ("[" * 100_000, "levels"),
        (b"\xff", "malformed|UTF-8"),
        ("{", "malformed"),
        ("", "malformed"),
    ],
    ids=range(10),
)
def test_the_error_says_why_a_text_is_not_plain_json_and_quotes_nothing(text: str | bytes, why: str) -> None:
    with pytest.raises(NotPlainJsonError, match=why) as caught:
        loads(text)
    assert len(str(caught.value)) < 80


def test_the_deepest_answer_that_is_accepted_fits_into_protobuf() -> None:
    assert loads("[" * MAX_ANSWER_DEPTH + "]" * MAX_ANSWER_DEPTH)
    check({"a": [1, 2.5, None, True, "\ud800", {"b": 2**1000}]})


@given(SURROGATES)
def test_whole_text_can_be_encoded_and_keeps_what_is_whole(text: str) -> None:
    whole = whole_text(text)
    whole.encode()
    assert whole_text(whole) == whole
    if "\ud83d" not in text and "\ude00" not in text:
        assert whole == text


@given(SURROGATES, st.lists(st.integers(0, 12)))
def test_the_pieces_of_a_text_join_to_the_whole_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = TextPieces()
    told = "".join(pieces.next(text[begin:end]) for begin, end in itertools.pairwise(bounds))
    # The half of a pair that nothing followed was not sent.
    assert told == whole_text(text).removesuffix("\ufffd") or told == whole_text(text)


def test_halves_of_an_emoji_join() -> None:
    halves = json.loads(r'["a\ud83d", "\ude00b"]')
    pieces = TextPieces()
    assert [pieces.next(half) for half in halves] == ["a", "\U0001f600b"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("short", "'short'"),
        ("x" * 81, "'" + "x" * 80 + "'... (81 characters)"),
        ("a\nb\ud800", r"'a\nb\ud800'"),
        (10**5000, "an integer of 16,610 bits"),
        (None, "nothing"),
        (True, "true"),
        (0.5, "0.5"),
        ({"a": "secret"}, "an object"),
        ([1] * 10**6, "a list"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_from_outside_is_quoted_short_and_in_one_line(value: object, wanted: str) -> None:
    assert quoted(value) == wanted

"""Long texts are joined piece by piece, and come out as Python itself would join them."""

from __future__ import annotations

import ctypes
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.intake import joined_text
from router.intake.json_structure import MAX_TEXT_BYTES
from router.intake.long_strings import _PIECE, find_long_strings, shorten

PIECES = st.lists(st.text(alphabet="a\x7fé\xffĀ漢\uffff😀\U0010ffff\ud83d\ude00\x00", max_size=20))


@given(PIECES)
def test_a_joined_text_is_that_of_python_in_every_size_of_characters(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined_text, "_SHORT", -1)
        text = joined_text.joined(pieces)
    expected = "".join(pieces)
    assert text == expected
    assert hash(text) == hash(expected)
    assert sys.getsizeof(text) == sys.getsizeof(expected)
    assert text.isascii() == expected.isascii()


@pytest.mark.parametrize("text", [b"QUJD" * 500_000, b"QUJD\\/" * 300_000, "漢字".encode() * (MAX_TEXT_BYTES // 6)])
def test_a_long_string_of_a_body_is_never_copied_whole(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    copy = joined_text._COPY

    def watched(whole: int, at: int, piece: str, begin: int, length: int) -> int:
        steps.append(length)
        return int(copy(whole, at, piece, begin, length))

    monkeypatch.setattr(joined_text, "_SHORT", 0)
    monkeypatch.setattr(joined_text, "_COPY", watched)
    raw = b'{"image":"' + text + b'"}'
    (found,) = shorten(raw, find_long_strings(raw)).strings.values()
    assert found == json.loads(raw)["image"]
    assert sum(steps) == len(found)
    assert max(steps) <= _PIECE


def test_a_joined_text_is_freed_with_its_last_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_text, "_SHORT", 0)
    assert sys.getrefcount(joined_text.joined(["one", "two"])) == sys.getrefcount("".join(["o", "ne"]))


def test_nobody_else_who_calls_the_same_functions_of_python_notices() -> None:
    # The encoder's runtime gives an object to Py_DecRef, and so did not end if the function took addresses only.
    assert joined_text._FORGET.argtypes == (ctypes.c_void_p,)
    assert ctypes.pythonapi.Py_DecRef.argtypes is None

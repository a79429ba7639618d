"""Long strings of a JSON text are found wherever they lie, and decoded in pieces to what a decoder reads at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answering.reading.answer_json import loads_in_pieces
from router.intake import long_strings
from router.intake.long_strings import find_long_strings, shorten
from router.plain_json import NotPlainJsonError

SIGNS = st.text(alphabet='a"\\\n é漢😀\ud83d', max_size=40)

TEXTS = {
    "plain": b"word  " * 100_000,
    "foreign": "漢".encode() * 200_000,
    "escaped": b"\\u6f22" * 100_000,
    "pairs": b"\\ud83d\\ude00" * 50_000,
    "backslashes of letters": b"a\\\\\\n" * 100_000,
}


@given(st.lists(SIGNS, max_size=6), st.booleans())
def test_the_strings_that_are_found_are_those_of_the_text_whichever_blocks_it_is_read_in(strings, ascii_only):
    raw = json.dumps(strings, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_strings, "LONG_STRING_BYTES", 0)
        patch.setattr(long_strings, "_BLOCK", 3)
        found = [raw[begin:end] for begin, end in find_long_strings(raw)]
    expected = [json.dumps(one, ensure_ascii=ascii_only).encode(errors="surrogatepass")[1:-1] for one in strings]
    assert found == expected


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_step_decodes_much_more_than_a_piece_of_a_long_answer(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b'{"choices":[{"message":{"content":"' + text + b'"}}]}'
    expected = json.loads(raw)
    steps: list[int] = []
    loads = json.loads

    def watched(piece: Any, **options: Any) -> Any:
        steps.append(len(piece))
        return loads(piece, **options)

    monkeypatch.setattr(json, "loads", watched)
    assert loads_in_pieces(raw) == expected
    assert steps
    assert max(steps) <= long_strings._PIECE + 100


@pytest.mark.parametrize(
    "raw",
    [
        b'{"' + b"k" * 100_000 + b'" : 1}',
        b'{"a":"' + b"\\x" * 100_000 + b'"}',
        b'{"a":"' + b"\n" * 100_000 + b'"}',
        b'{"a":"' + b"\xff" * 100_000 + b'"}',
        b'{"a":"' + b"a" * 100_000,
    ],
    ids=["key", "escape", "control characters", "no UTF-8", "no end"],
)
def test_a_long_answer_that_is_malformed_is_told_as_such(raw: bytes) -> None:
    with pytest.raises(NotPlainJsonError, match="malformed"):
        loads_in_pieces(raw)


def test_a_long_answer_in_utf_16_is_read_too() -> None:
    value = {"content": "word " * 20_000}
    assert loads_in_pieces(json.dumps(value).encode("utf-16-le")) == value


def test_placeholders_are_not_to_be_guessed() -> None:
    raw = json.dumps({"a": "x" * long_strings.LONG_STRING_BYTES, "b": "0"}).encode()
    first, second = (next(iter(shorten(raw, find_long_strings(raw)).strings)) for _ in range(2))
    assert first != second
    assert len(first) > 32

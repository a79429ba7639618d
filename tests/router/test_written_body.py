"""Members of a JSON object are exchanged, added and taken out in its bytes, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gateways.http.request_body import ChatBody
from router.written_body import WrittenBody

RAW = b' {"a" :1, "model":"m",\n"\\u0062": [ {"c":2} ] ,"d":"x,}\\""} \n'


def written(raw: bytes) -> WrittenBody:
    return ChatBody.parse(raw).written


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, b' {"a" :1, "model":"M",\n"\\u0062": [ {"c":2} ] ,"d":"x,}\\""} \n'),
        ({"a": b"7"}, b'{"a" :7,"model":"M","\\u0062": [ {"c":2} ],"d":"x,}\\""}'),
        ({"a": None, "d": None}, b'{"model":"M","\\u0062": [ {"c":2} ]}'),
        ({"b": None}, b'{"a" :1,"model":"M","d":"x,}\\""}'),
        ({"n": b"[1]", 'q"': b"{}"}, b'{"a" :1,"model":"M","\\u0062": [ {"c":2} ],"d":"x,}\\"","n":[1],"q\\"":{}}'),
        ({"not there": None}, b'{"a" :1,"model":"M","\\u0062": [ {"c":2} ],"d":"x,}\\""}'),
    ],
)
def test_only_what_is_named_changes(changes: dict[str, bytes | None], expected: bytes) -> None:
    assert b"".join(written(RAW).changed(changes).with_model(b'"M"')) == expected


def test_later_changes_win_and_large_values_are_not_copied() -> None:
    raw = json.dumps({"model": "m", "picture": "x" * 100_000, "n": 1}).encode()
    pieces = written(raw).changed({"n": b"2"}).changed({"n": b"3"}).with_model(b'"M"')
    assert any(isinstance(piece, memoryview) and piece.obj is raw and len(piece) > 100_000 for piece in pieces)
    assert json.loads(b"".join(pieces))["n"] == 3


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", 'q"', "ü", "", "z\\"]), _VALUES),
    st.dictionaries(st.sampled_from(["a", "b", 'q"', "new"]), st.none() | _VALUES.map(lambda value: [value])),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_any_body_with_any_changes_says_what_it_should(
    fields: dict[str, Any], changes: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps({**fields, "model": "m"}, indent=indent, ensure_ascii=ascii_only).encode()
    told = {key: None if value is None else json.dumps(value).encode() for key, value in changes.items()}
    merged = {**fields, **changes, "model": "M"}
    expected = {key: value for key, value in merged.items() if not (key in changes and value is None)}
    assert json.loads(b"".join(written(raw).changed(told).with_model(b'"M"'))) == expected

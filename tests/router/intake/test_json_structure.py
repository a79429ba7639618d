"""A body is counted without decoding it, and decoded in pieces to the same values as in one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidRequestError
from router.intake import json_structure, long_strings
from router.intake.json_object import read_object
from router.intake.json_structure import MAX_VALUES, check_json
from router.intake.long_strings import LONG_STRING_BYTES

TEXT = 512 * 1024
SIGNS = st.text(alphabet='a"\\,:[]{}|\n é漢😀\ud83d', max_size=30)
VALUES = st.recursive(
    st.none() | st.integers() | SIGNS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def walked(value: object) -> tuple[int, int]:
    """Return how many values a JSON text holds, and how deeply they are nested."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        return 1, 0
    below = [walked(item) for item in inner]
    return 1 + sum(n for n, _ in below), 1 + max((depth for _, depth in below), default=0)


@given(VALUES, st.booleans())
def test_values_are_never_undercounted_and_depth_is_exact_whatever_the_strings_hold(value, ascii_only):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    found = json_structure._structure(raw, TEXT)
    n_values, depth = walked(value)
    assert found.depth == depth
    assert n_values <= found.n_values <= 2 * n_values


@given(st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=3), VALUES, max_size=5), st.booleans())
def test_an_object_with_long_strings_is_read_as_json_reads_it_and_its_members_are_found(body, ascii_only):
    raw = json.dumps({**body, "model": "é"}, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    with pytest.MonkeyPatch.context() as patch:
        # Small ones, so that many strings are long and are cut in many places.
        patch.setattr(json_structure, "LONG_STRING_BYTES", 40)
        patch.setattr(long_strings, "_PIECE", 5)
        found = read_object(raw, json_structure._structure(raw, TEXT).long_strings)
    assert found.fields == {**body, "model": "é"}
    begin, end = found.at["model"]
    assert json.loads(raw[begin:end]) == "é"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[' + b"{}," * MAX_VALUES + b"{}]}",
        b'{"a":[' + b"[]," * (3 * MAX_VALUES) + b"[]]}",
        json.dumps({f"k{number}": 0 for number in range(MAX_VALUES + 1)}).encode(),
        b"[" * 20_000,
        b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
        b'{"a":"' + b"\\\\" * 2_000_000 + b'"}',
        b'{"a":"' + b"\\u00e9" * 2_000_000 + b'"}',
        ('{"a":"' + "漢" * 1_000_000 + '"}').encode(),
        b'{"a":1' + b" " * 9_000_000 + b"}",
    ],
    ids=["objects", "lists", "keys", "open", "deep", "backslashes", "escapes", "foreign", "blanks"],
)
def test_a_body_that_would_take_long_to_decode_is_refused_before_it_is_decoded(raw, monkeypatch):
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(InvalidRequestError, match="the body must be a JSON object"):
        check_json(raw, max_text_bytes=TEXT)


def test_a_picture_and_a_text_full_of_punctuation_pass():
    picture = b'{"url":"data:image/png;base64,' + b"QUJ\\/" * 200_000 + b'","model":"x"}'
    (where,) = check_json(picture, max_text_bytes=TEXT).long_strings
    found = read_object(picture, [where])
    assert found.fields["url"] == json.loads(picture)["url"]
    begin, end = found.at["model"]
    assert picture[begin:end] == b'"x"'
    text = json.dumps({"content": '{"a":[1,2]}\\' * 40_000}).encode()
    assert read_object(text, check_json(text, max_text_bytes=TEXT).long_strings).fields == json.loads(text)


def test_a_long_key_is_refused():
    raw = b'{"' + b"k" * LONG_STRING_BYTES + b'" :1}'
    with pytest.raises(ValueError, match="key"):
        read_object(raw, check_json(raw, max_text_bytes=TEXT).long_strings)

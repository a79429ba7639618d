"""JSON in which an object names a key twice is refused by every reader, with the key and its place."""

from __future__ import annotations

import json
import re

import pytest

from probes.bounded.files import BoundedJsonError, parse_json
from probes.bounded.json_keys import RepeatedKeyError, loads
from probes.bounded.text import decode_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "key 'a' occurs twice in one object, at column 10"),
        ('{"a": 1,\n "b": [{"c": 1}, {"c": 2}],\n  "a": 2}', "key 'a' occurs twice in one object, at line 3, column 3"),
        (
            '{"a": {"a": 1}, "b": {"c": ":", "d": "\\"c\\":", "c": 0}}',
            "key 'c' occurs twice in one object, at column 48",
        ),
        ('[{"\\u0061": 1, "a": 2}]', "key 'a' occurs twice"),
        ('{"": 1, "": 2}', "key '' occurs twice"),
        ('{"%s": 1, "%s": 2}' % (("x" * 100,) * 2), f"key '{'x' * 60}...' occurs twice"),
        ('{"sk-abcdefgh1234567890": 1, "sk-abcdefgh1234567890": 2}', "key '***' occurs twice"),
    ],
)
def test_a_key_that_occurs_twice_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(RepeatedKeyError, match=re.escape(said)):
        loads(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        decode_json(text.encode())
    with pytest.raises(BoundedJsonError, match=re.escape(said)):
        parse_json(text.encode())


@pytest.mark.parametrize("text", ['{"a": {"a": [{"a": 1}, {"a": 1}]}, "b": "a"}', '["a", "a"]', "{}", '"a"'])
def test_equal_keys_of_different_objects_are_read(text: str) -> None:
    assert loads(text) == decode_json(text) == parse_json(text.encode()) == json.loads(text)


def test_the_place_of_a_fault_in_a_single_line_has_no_number_of_the_line() -> None:
    with pytest.raises(ValueError, match=r"^a comma or an end is missing at column 9$"):
        decode_json(b'{"a": 1 "b": 2}\n')
    with pytest.raises(ValueError, match=r"^a comma or an end is missing at line 2, column 2$"):
        decode_json(b'{"a": 1\n "b": 2}\n')
    with pytest.raises(ValueError, match=r"^a key in double quotes is missing at column 2$"):
        decode_json(b"{\n")

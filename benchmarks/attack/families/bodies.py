"""Send bodies over HTTP that are expensive to decode or to read."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.attack.target import Found, Target

MODEL = b'{"model":"elle/default",'
MB = 1_000_000


def empty_messages(target: Target) -> Found:
    """Send 29 MB of empty messages."""
    return _posted(target, MODEL + b'"messages":[' + b"{}," * (29 * MB // 3) + b"{}]}")


def million_keys(target: Target) -> Found:
    """Send an object of a million keys."""
    keys = ",".join(f'"k{number}":0' for number in range(MB))
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"hi"}],"metadata":{' + keys.encode() + b"}}")


def empty_tools(target: Target) -> Found:
    """Send ten million empty lists for tools."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"hi"}],"tools":[' + b"[]," * 9 * MB + b"[]]}")


def role_of_thirty_megabytes(target: Target) -> Found:
    """Send a message whose role is 30 MB long."""
    return _posted(target, MODEL + b'"messages":[{"role":"' + b"r" * 30 * MB + b'","content":"hi"}]}')


def key_of_thirty_megabytes(target: Target) -> Found:
    """Send a key of 30 MB."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"hi"}],"' + b"k" * 30 * MB + b'":1}')


def backslashes(target: Target) -> Found:
    """Send a string of 30 MB of escaped backslashes."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"' + b"\\\\" * 15 * MB + b'"}]}')


def escaped_letters(target: Target) -> Found:
    """Send a string of five million letters, each written as an escape."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"' + b"\\u00e9" * 5 * MB + b'"}]}')


def deep_nesting(target: Target) -> Found:
    """Send ten million lists within each other."""
    return _posted(target, MODEL + b'"messages":' + b"[" * 10 * MB + b"]" * 10 * MB + b"}")


def long_number(target: Target) -> Found:
    """Send a number of ten million digits."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"hi"}],"n":' + b"9" * 10 * MB + b"}")


def foreign_letters(target: Target) -> Found:
    """Send a text of ten million Chinese characters."""
    return _posted(target, MODEL + b'"messages":[{"role":"user","content":"' + "漢".encode() * 10 * MB + b'"}]}')


def white_space(target: Target) -> Found:
    """Send 30 MB of blanks between two members."""
    return _posted(target, MODEL + b" " * 30 * MB + b'"messages":[{"role":"user","content":"hi"}]}')


def tiny_parts(target: Target) -> Found:
    """Send a message of as many empty parts as pass."""
    part = {"type": "text", "text": ""}
    return _posted(target, {"messages": [{"role": "user", "content": [part] * 12_000}]})


def many_messages(target: Target) -> Found:
    """Send as many messages as pass."""
    return _posted(target, {"messages": [{"role": "user", "content": "hi"}] * 16_000})


def picture(target: Target) -> Found:
    """Send a picture of 30 MB, which is served."""
    url = b"data:image/png;base64," + b"QUJD" * (30 * MB // 4)
    part = b'{"type":"image_url","image_url":{"url":"' + url + b'"}}'
    return _posted(
        target, MODEL + b'"messages":[{"role":"user","content":[{"type":"text","text":"what?"},' + part + b"]}]}"
    )


def tags_of_harnesses(target: Target) -> Found:
    """Send 500 KB of lines that begin like a harness's tag."""
    return _posted(target, {"messages": [{"role": "user", "content": "\n<f" * 170_000}]})


def unclosed_tags(target: Target) -> Found:
    """Send 500 KB of opening tags of harnesses that nobody closes."""
    return _posted(target, {"messages": [{"role": "user", "content": "<system-reminder>\n" * 28_000}]})


def blanks_of_a_text(target: Target) -> Found:
    """Send a text of 500 KB of blanks and line ends."""
    return _posted(target, {"messages": [{"role": "user", "content": "a" + " \n" * 250_000 + "b"}]})


def lines_like_code(target: Target) -> Found:
    """Return a text whose lines nearly read like code."""
    line = "def " + "a" * 196 + "\n"
    return _posted(target, {"messages": [{"role": "user", "content": line * 2_400}]})


def json_in_a_user_id(target: Target) -> Found:
    """Send a user id that is JSON of 160,000 empty objects, in which a session might be looked for."""
    user_id = '{"session_id":"s","x":[' + "{}," * 160_000 + "{}]}"
    return _posted(target, {"messages": [{"role": "user", "content": "hi"}], "metadata": {"user_id": user_id}})


def _posted(target: Target, body: bytes | dict[str, Any]) -> Found:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "elle/default", **body}).encode()
    return target.attacked_by(lambda: target.post(raw))


ATTACKS = (
    *(empty_messages, million_keys, empty_tools, role_of_thirty_megabytes, key_of_thirty_megabytes, backslashes),
    *(escaped_letters, deep_nesting, long_number, foreign_letters, white_space, tiny_parts, many_messages, picture),
    *(tags_of_harnesses, unclosed_tags, blanks_of_a_text, lines_like_code, json_in_a_user_id),
)
QUICK = (empty_messages, tags_of_harnesses)

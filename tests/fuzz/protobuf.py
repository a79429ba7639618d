"""Write protobuf messages from trees that can be mutated and shrunk, without the generated classes.

A message is a list of fields, each `[number, kind, value]`: kind `m` (a message), `s` (bytes, one character each), `v`
(a varint), `d` (a double, as text) or `r` (bytes that stand as they are, number ignored). JSON can hold such a tree.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.fuzz import chats
from tests.fuzz.values import CANDIDATES, POLICIES, Raw, Values

Tree = list[list[Any]]


def encode(tree: Tree) -> bytes:
    """Return the bytes of a protobuf message."""
    return b"".join(_field(*field) for field in tree)


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind == "r":
        return bytes(value.encode("latin-1"))
    if kind == "v":
        return varint(number << 3) + varint(value)
    if kind == "d":
        return varint(number << 3 | 1) + struct.pack("<d", float(value))
    raw = encode(value) if kind == "m" else value.encode("latin-1")
    return varint(number << 3 | 2) + varint(len(raw)) + bytes(raw)


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it; a negative one becomes its 64-bit complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def string(number: int, value: Any) -> list[Any]:
    """Return a string field; half surrogates become bytes that no UTF-8 has."""
    text = value if isinstance(value, str) else repr(value)
    return [number, "s", text.encode(errors="surrogatepass").decode("latin-1")]


def value_tree(value: Any) -> Tree:
    """Return a random `google.protobuf.Value`."""
    if isinstance(value, Raw):
        try:
            return [[2, "d", repr(float(value.text))]]
        except (ValueError, OverflowError):
            return _nested(value.text)
    if value is None:
        return [[1, "v", 0]]
    if isinstance(value, bool):
        return [[4, "v", int(value)]]
    if isinstance(value, int | float):
        return [[2, "d", repr(float(value))]]
    if isinstance(value, str):
        return [string(3, value)]
    if isinstance(value, dict):
        return [[5, "m", struct_tree(value)]]
    return [[6, "m", [[1, "m", value_tree(item)] for item in value]]]


def _nested(text: str) -> Tree:
    """Return a value as deep as the text has brackets. Trees are made and written recursively: 60 levels are enough."""
    tree: Tree = [[2, "d", "1.0"]]
    for _ in range(min(60, text.count("[") + text.count("{"))):
        tree = [[6, "m", [[1, "m", tree]]]] if "[" in text else [[5, "m", [[1, "m", [string(1, "a"), [2, "m", tree]]]]]]
    return tree


def struct_tree(fields: dict[str, Any]) -> Tree:
    """Return a random `google.protobuf.Struct`."""
    return [[1, "m", [string(1, key), [2, "m", value_tree(item)]]] for key, item in fields.items()]


def route(v: Values) -> Tree:
    """Return a random RouteRequest."""
    tree: Tree = []
    if v.chance(0.6):
        tree.append([1, "m", [[1, "m", _message(v)] for _ in range(v.one_of(0, 1, 1, 2, 5) if v.wild else 1)]])
    if not tree or v.chance(0.1):
        tree.append(string(2, v.text()))
    if v.chance(0.4):
        tree.append([3, "m", _overrides(v)])
    if v.chance(0.2):
        tree.append(string(4, v.text()))
    if v.chance(0.4):
        tree.append([5, "m", struct_tree(chats.parameters(v) | ({"stream": True} if v.chance(0.05) else {}))])
    return mutated(v, tree)


def mutated(v: Values, tree: Tree) -> Tree:
    """Change fields now and then: one more, one twice, one of another type, or bytes that are no field."""
    if v.chance(0.9 if v.wild else 0.99):
        return tree
    strange: list[Any] = v.one_of(
        [v.one_of(99, 2**20, 1, 2, 3, 4, 5), "v", v.one_of(0, 1, 2**63, -1)],
        [v.one_of(1, 2, 3, 4, 5, 77), "s", "".join(chr(v.random.randrange(256)) for _ in range(v.random.randrange(9)))],
        [v.one_of(1, 2, 3, 4, 5), "d", "nan"],
        [0, "r", "".join(chr(v.random.randrange(256)) for _ in range(v.random.randrange(1, 9)))],
    )
    at = v.random.randrange(len(tree) + 1)
    return [*tree[:at], strange, *tree[at:]] if v.chance(0.7) else tree + tree


def _message(v: Values) -> Tree:
    said = chats.message(v)
    tree: Tree = [string(1, said.get("role", ""))]
    inside = said.get("content")
    if isinstance(inside, list):
        tree.append([3, "m", [[1, "m", _part(v, part)] for part in inside]])
    elif inside is not None:
        tree.append(string(2, inside))
    if "name" in said:
        tree.append(string(4, said["name"]))
    if isinstance(calls := said.get("tool_calls"), list):
        tree += [[5, "m", struct_tree(call)] for call in calls if isinstance(call, dict)]
    if "tool_call_id" in said:
        tree.append(string(6, said["tool_call_id"]))
    if v.chance(0.1):
        tree.append([7, "m", struct_tree({v.text(): v.value(), v.one_of("role", "content", "type"): v.value()})])
    return mutated(v, tree)


def _part(v: Values, part: Any) -> Tree:
    kind = v.random.random()
    if kind < 0.3:
        return [string(1, v.text())]
    if kind < 0.45:
        return [[2, "m", [string(1, v.text()), *([string(2, v.text())] if v.chance(0.5) else [])]]]
    if kind < 0.5:
        return []
    return [[3, "m", struct_tree(part if isinstance(part, dict) else {"type": part})]]


def _overrides(v: Values) -> Tree:
    double = v.random.choice(("nan", "inf", "-inf", "-0.0", "0.0", "0.3", "1.0", "-1.0", "1e308", "5e-324", "2"))
    options: list[list[list[Any]]] = [
        [string(1, v.usually(lambda: v.random.choice(POLICIES), 0.6))],
        [[v.one_of(2, 6, 8), "d", double]],
        [
            string(v.one_of(3, 4), v.usually(lambda: v.random.choice(CANDIDATES), 0.8))
            for _ in range(v.one_of(1, 2, 50))
        ],
        [string(5, v.usually(lambda: v.random.choice(CANDIDATES), 0.7))],
        [string(7, v.text())],
    ]
    return mutated(v, [field for option in options if v.chance(0.3) for field in option])


def batch(v: Values) -> Tree:
    """Return a random BatchRouteRequest."""
    return mutated(v, [[1, "m", route(v)] for _ in range(v.one_of(0, 1, 2, 3, 8))])

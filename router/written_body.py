"""Hold a JSON object as its sender wrote it, in which single members can be exchanged (`WrittenBody`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

Piece: TypeAlias = bytes | memoryview

#: The member that is exchanged in every body.
_MODEL = "model"


@dataclass(frozen=True, slots=True)
class WrittenBody:
    """The bytes of a JSON object, and where the value of each of its members lies.

    Nothing is copied, because the bytes may hold pictures.

    Attributes:
        raw: the bytes.
        at: for each key, in order, where the bytes of its value begin and end.
        changes: for keys, which may be new, the bytes of the value that replaces theirs; None takes the member out.
    """

    raw: bytes
    at: Mapping[str, tuple[int, int]]
    changes: Mapping[str, bytes | None] = field(default_factory=dict)

    def changed(self, changes: Mapping[str, bytes | None]) -> WrittenBody:
        """Return the body with further changes."""
        return replace(self, changes={**self.changes, **changes})

    def with_model(self, model: bytes) -> tuple[Piece, ...]:
        """Return the pieces of the body with this JSON value of `model`, which the body must have.

        Without changes every other byte is as it was. With changes the members that stay are as they were, one behind
        the other.
        """
        if not self.changes:
            begin, end = self.at[_MODEL]
            raw = memoryview(self.raw)
            return raw[:begin], model, raw[end:]
        return tuple(self._rewritten({**self.changes, _MODEL: model}))

    def whole(self) -> bytes:
        """Return the bytes of the changed body."""
        return b"".join(self._rewritten(self.changes)) if self.changes else self.raw

    def _rewritten(self, changes: Mapping[str, bytes | None]) -> Iterator[Piece]:
        raw, before, sign = memoryview(self.raw), 0, b"{"
        for key, (begin, end) in self.at.items():
            # Between two members there are only white space and a comma.
            key_begin, before = self.raw.index(b'"', before), end
            value = changes.get(key, raw[begin:end])
            if value is not None:
                yield from (sign, raw[key_begin:begin], value)
                sign = b","
        for key, new in changes.items():
            if key not in self.at and new is not None:
                yield from (sign, json.dumps(key).encode(), b":", new)
                sign = b","
        yield b"}" if sign == b"," else b"{}"

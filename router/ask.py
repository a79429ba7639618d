"""What the human asks, and what answering needs, out of a chat body in the OpenAI shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.config import Capability
from router.errors import InvalidRequestError
from router.types import Message, RouteQuery

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

#: How much of the opening task goes before the newest turn of a longer chat.
OPENING_CHARS = 400

#: Bytes of UTF-8 per token: close to 4 for English, and 3-byte scripts come out at about one token a sign.
BYTES_PER_TOKEN = 4

#: A stand-in for the tokens of one image, about a 1024 x 1024 picture at high detail.
TOKENS_PER_IMAGE = 765

_NEEDS_OF_PARTS: Mapping[str, Capability] = {
    "image_url": Capability.IMAGE,
    "input_image": Capability.IMAGE,
    "image": Capability.IMAGE,
    "input_audio": Capability.AUDIO,
    "audio_url": Capability.AUDIO,
    "file": Capability.FILE,
    "input_file": Capability.FILE,
    "document": Capability.FILE,
    "video_url": Capability.VIDEO,
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})


@dataclass(frozen=True, slots=True)
class Ask:
    """What is judged, and what a candidate must be able to do.

    Attributes:
        text: what the human wants, for the encoder; empty if there is no text, as with a lone image.
        needs: capabilities, besides text, without which a candidate cannot answer.
        unknown_parts: types of content parts that no capability covers; no candidate can answer them.
        input_tokens_estimate: of the whole request.
        max_output_tokens: as the caller bounds it; None if not.
    """

    text: str
    needs: frozenset[Capability]
    unknown_parts: tuple[str, ...]
    input_tokens_estimate: int
    max_output_tokens: int | None


def extract(query: RouteQuery, *, max_bytes: int) -> Ask:
    """The ask of a query.

    Raises InvalidRequestError, naming the field, for an empty or malformed chat, text that is not valid Unicode, a
    chat without anything to judge, or one of more than `max_bytes` bytes of text.
    """
    messages = query.messages
    if not messages:
        raise InvalidRequestError("messages must hold at least one message, got none.", field="messages")
    turns = [_Turn.read(message, index) for index, message in enumerate(messages)]
    size = sum(turn.size for turn in turns) + _size_of(query.parameters.get("tools"))
    if size > max_bytes:
        raise InvalidRequestError(
            f"messages must hold at most {max_bytes:,} bytes of text, got {size:,}; shorten them, or raise "
            f"--max-prompt-bytes of the service.",
            field="messages",
        )
    parts = [part for turn in turns for part in turn.other_parts]
    needs = {_NEEDS_OF_PARTS[part] for part in parts if part in _NEEDS_OF_PARTS} | _needs_of(query.parameters)
    text = _text_to_judge(turns)
    if not text and not parts:
        raise InvalidRequestError("messages must hold some text or another part to answer, got none.", field="messages")
    images = sum(1 for part in parts if _NEEDS_OF_PARTS.get(part) is Capability.IMAGE)
    return Ask(
        text=text,
        needs=frozenset(needs),
        unknown_parts=tuple(sorted({part for part in parts if part not in _NEEDS_OF_PARTS})),
        input_tokens_estimate=-(-size // BYTES_PER_TOKEN) + images * TOKENS_PER_IMAGE,
        max_output_tokens=_max_output_tokens(query.parameters),
    )


def _text_to_judge(turns: Sequence[_Turn]) -> str:
    """The newest human turn, after the opening one where there are several ("go ahead" alone says nothing)."""
    human = [turn.text.strip() for turn in turns if turn.role == "user" and turn.text.strip()]
    if not human:
        # A body of system and assistant messages only: judge what there is rather than nothing.
        human = ["\n".join(turn.text.strip() for turn in turns if turn.text.strip())]
    if len(human) == 1:
        return human[0]
    return f"{human[0][:OPENING_CHARS]}\n\n{human[-1]}"


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str
    other_parts: tuple[str, ...]
    size: int

    @classmethod
    def read(cls, message: Message, index: int) -> _Turn:
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise InvalidRequestError(f"{where} must be an object, got {type(message).__name__}.", field=where)
        role = message.get("role")
        if role not in ROLES:
            raise InvalidRequestError(
                f"{where}.role must be one of {', '.join(sorted(ROLES))}, got {role!r}.", field=f"{where}.role"
            )
        parts = list(_parts_of(message.get("content"), f"{where}.content"))
        joined = "\n".join(text for kind, text in parts if kind in _TEXT_PARTS)
        try:
            size = len(joined.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"{where}.content must be valid Unicode, got a lone surrogate at position {error.start}.",
                field=f"{where}.content",
            ) from error
        others = tuple(kind for kind, _ in parts if kind not in _TEXT_PARTS)
        return cls(role, joined, others, size + _size_of(message.get("tool_calls")))


def _parts_of(content: Any, where: str) -> Iterator[tuple[str, str]]:
    """Pairs of (type, text) of a message's content, whichever of its shapes it has."""
    if content is None:
        return
    if isinstance(content, str):
        yield "text", content
        return
    if not isinstance(content, Sequence):
        raise InvalidRequestError(
            f"{where} must be text or a list of parts, got {type(content).__name__}.", field=where
        )
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str) or not kind:
            raise InvalidRequestError(f"{where}[{index}] must be an object with a `type`.", field=f"{where}[{index}]")
        text = part.get("refusal" if kind == "refusal" else "text", "")
        if kind in _TEXT_PARTS and not isinstance(text, str):
            raise InvalidRequestError(
                f"{where}[{index}].text must be text, got {type(text).__name__}.", field=f"{where}[{index}].text"
            )
        yield kind, text if kind in _TEXT_PARTS else ""


def _needs_of(parameters: Mapping[str, Any]) -> set[Capability]:
    needs = set()
    if parameters.get("tools") or parameters.get("functions"):
        needs.add(Capability.TOOLS)
    response_format = parameters.get("response_format")
    if isinstance(response_format, Mapping) and response_format.get("type") == "json_schema":
        needs.add(Capability.JSON_SCHEMA)
    return needs


def _max_output_tokens(parameters: Mapping[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        value = parameters.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 1 or value != int(value):
            raise InvalidRequestError(f"{key} must be a whole number of 1 or more, got {value!r}.", field=key)
        return int(value)
    return None


def _size_of(value: Any) -> int:
    return len(json.dumps(value, default=str)) if value else 0

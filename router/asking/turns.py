"""Read the turns of a chat in the shape of OpenAI chat, OpenAI Responses or Anthropic Messages (`read_turns`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from router.asking.response_items import turn_of_item
from router.errors import InvalidRequestError
from router.quoting import kind_of, quoted
from router.values import Capability, Message

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

#: The largest number of characters in one tool call, one answer of a tool, or all tools together. It is twice what the
#: largest models read.
MAX_VALUE_CHARACTERS = 8 * 1024 * 1024

#: The largest number of characters of a role, or of the type of a part.
_LONGEST_NAME = 100

_SPEAKERS = ROLES - {"tool", "function"}
_PLAIN = frozenset({"role", "content", "name"})

#: For each type of a part that is not text, the capability that a candidate needs to read it.
NEEDS_OF_PARTS: Mapping[str, Capability] = {
    "image_url": Capability.IMAGE,
    "input_image": Capability.IMAGE,
    "image": Capability.IMAGE,
    "computer_screenshot": Capability.IMAGE,
    "input_audio": Capability.AUDIO,
    "audio_url": Capability.AUDIO,
    "file": Capability.FILE,
    "input_file": Capability.FILE,
    "document": Capability.FILE,
    "container_upload": Capability.FILE,
    "video_url": Capability.VIDEO,
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_CALL_PARTS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use", "tool-call"})
#: Parts with the model's own notes and citations. They count as input, but they need no capability and ask nothing.
_NOTE_PARTS = frozenset(
    {"thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text", "search_result"}
)
#: A value of more characters is written in pieces, which takes longer.
_LARGE_CHARACTERS = 64 * 1024

_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False)

#: Fields of calls and notes that the model does not read.
_UNREAD = frozenset({"type", "role", "signature"})


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat, with the text, the calls and the attachments in it.

    Attributes:
        role: one of ROLES.
        texts: the parts of plain text in order, without the answers of tools.
        results: the texts in the answers of tools, in order.
        other_parts: the types of all other parts, with those inside the answers of tools.
        size: the number of bytes in UTF-8 of all text and JSON in the message. Images and files count nothing.
        calls_tools: True if the message calls tools.
        answers_tools: True if the message holds answers of tools.
    """

    role: str
    texts: tuple[str, ...]
    results: tuple[str, ...]
    other_parts: tuple[str, ...]
    size: int
    calls_tools: bool
    answers_tools: bool

    @property
    def text(self) -> str:
        """Return the plain text of the message, one part per line."""
        return "\n".join(self.texts)


def read_turns(messages: Sequence[Message], *, field: str = "messages") -> list[Turn]:
    """Return the turns of a chat, oldest first.

    field: the field of the body that holds the messages. In `input` they are items of the Responses API, of which every
        type is taken. Only `messages` must hold any: other requests may go on from what their provider keeps.

    Raises InvalidRequestError for a malformed chat.
    """
    if not messages and field == "messages":
        raise InvalidRequestError("messages must hold at least one message, got none.", field="messages")
    return [_read(message, f"{field}[{index}]", field == "input") for index, message in enumerate(messages)]


def json_bytes(value: Any) -> int:
    """Return how many bytes a value has as JSON, or 0 for an empty one. Raise InvalidRequestError for a huge one."""
    text = _as_json(value)
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _read(message: Message, where: str, is_item: bool) -> Turn:
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be an object, got {kind_of(message)}.", field=where)
    role, content = _role_and_content(message, where, is_item)
    if isinstance(content, str) and role in _SPEAKERS and message.keys() <= _PLAIN:
        # Nearly every turn has this shape. The general way below would return the same turn, but takes longer.
        return Turn(role, (content,), (), (), _utf8_size(content, f"{where}.content"), False, False)
    parts = list(_parts_of(content, f"{where}.content"))
    size = sum(_utf8_size(part.text, f"{where}.content") for part in parts)
    kinds = {part.kind for part in parts}
    texts, results = (tuple(part.text for part in parts if part.kind == kind) for kind in ("text", "result"))
    calls = message.get("tool_calls") or message.get("function_call")
    is_answer = role in {"tool", "function"}
    return Turn(
        role=role,
        texts=() if is_answer else texts,
        results=(*texts, *results) if is_answer else results,
        other_parts=tuple(part.type for part in parts if part.kind == "other"),
        size=size + max(0, len(texts) - 1) + json_bytes(calls),
        calls_tools=bool(calls) or "call" in kinds,
        answers_tools=is_answer or "result" in kinds,
    )


def _role_and_content(message: Message, where: str, is_item: bool) -> tuple[str, Any]:
    role = message.get("role")
    # Items of the Responses API that are not messages have a type in place of role and content.
    if (found := turn_of_item(message, only_known=not is_item)) is not None:
        return found
    # A long role is not looked up, because hashing it would take long.
    if not isinstance(role, str) or len(role) > _LONGEST_NAME or role not in ROLES:
        raise InvalidRequestError(
            f"{where}.role must be one of {', '.join(sorted(ROLES))}, got {quoted(role)}.", field=f"{where}.role"
        )
    return role, message.get("content")


class _Part(NamedTuple):
    """One part of a message: its kind, the text that counts as input, and for the kind `other` its type in the chat."""

    kind: Literal["text", "call", "result", "note", "other"]
    text: str
    type: str = ""


def _parts_of(content: Any, where: str) -> Iterator[_Part]:
    """Yield the parts of a message's content, which may be missing, a text, or a list of parts."""
    if content is None:
        return
    if isinstance(content, str):
        yield _Part("text", content)
        return
    if not isinstance(content, Sequence):
        raise InvalidRequestError(f"{where} must be text or a list of parts, got {kind_of(content)}.", field=where)
    for index, part in enumerate(content):
        yield from _part(part, f"{where}[{index}]")


def _part(part: Any, where: str) -> Iterator[_Part]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or not kind or len(kind) > _LONGEST_NAME:
        raise InvalidRequestError(f"{where} must be an object with a `type`.", field=where)
    if kind in _TEXT_PARTS:
        text = part.get("refusal" if kind == "refusal" else "text", "")
        if not isinstance(text, str):
            raise InvalidRequestError(f"{where}.text must be text, got {kind_of(text)}.", field=f"{where}.text")
        yield _Part("text", text)
    elif kind.endswith(("tool_result", "tool-result")):
        yield from _result(part, where)
    elif (is_call := kind in _CALL_PARTS or kind.endswith("_call")) or kind in _NOTE_PARTS:
        read = {key: value for key, value in part.items() if value and key not in _UNREAD}
        yield _Part("call" if is_call else "note", _as_json(read))
    else:
        yield _Part("other", _text_of_document(part) if kind == "document" else "", kind)


def is_unknown_part(part: Any) -> bool:
    """Return whether a part of a message has a type that nobody here knows, so that no capability covers it."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind in NEEDS_OF_PARTS or kind in _TEXT_PARTS | _CALL_PARTS | _NOTE_PARTS:
        return False
    return not kind.endswith(("tool_result", "tool-result", "_call"))


def has_unknown_parts(message: Mapping[str, Any]) -> bool:
    """Return whether the content of a message has such a part."""
    content = message.get("content")
    return isinstance(content, list | tuple) and any(map(is_unknown_part, content))


def _result(part: Mapping[str, Any], where: str) -> Iterator[_Part]:
    """Yield the parts of a tool's answer. Media keep their type; only the size of the other parts counts."""
    content = part.get("content", part.get("output"))
    if not isinstance(content, list | tuple):
        yield _Part("result", content if isinstance(content, str) else _as_json(content))
        return
    yield _Part("result", "")
    for index, inner in enumerate(content):
        kind = str(inner.get("type")) if isinstance(inner, Mapping) else ""
        if kind in _TEXT_PARTS:
            yield from (_Part("result", inside.text) for inside in _part(inner, f"{where}.content[{index}]"))
        elif kind in NEEDS_OF_PARTS:
            yield from _part(inner, f"{where}.content[{index}]")
        else:
            # Hits of a search, references and answers within answers count as input.
            yield _Part("note", _as_json(inner))


def _text_of_document(part: Mapping[str, Any]) -> str:
    source = part.get("source")
    data = source.get("data") if isinstance(source, Mapping) and source.get("type") == "text" else None
    return data if isinstance(data, str) else ""


def _as_json(value: Any) -> str:
    if not value:
        return ""
    # No other thread runs while `dumps` runs, so a huge value is refused before, and a large one written in pieces.
    length = _text_length(value)
    if length > MAX_VALUE_CHARACTERS:
        raise InvalidRequestError(
            f"tools, calls and what tools answer must each hold at most {MAX_VALUE_CHARACTERS:,} characters."
        )
    return "".join(_ENCODER.iterencode(value)) if length > _LARGE_CHARACTERS else _ENCODER.encode(value)


def _text_length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(len, filter(_is_text, value))) + sum(map(_text_length, value.values()))
    return sum(map(_text_length, value)) if isinstance(value, list | tuple) else 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _utf8_size(text: str, where: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{where} must be valid Unicode, got a lone surrogate at position {error.start}.", field=where
        ) from error

"""Record how far one call of a provider through LiteLLM came, and what was learnt of it (`Call`)."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.answering.formats.reported_errors import ReportedError
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.large_answers import SetAside, json_in_pieces
from router.answering.reading.sse import STREAM_FACTOR
from router.errors import DispatchError
from router.intake.json_object import read_object
from router.plain_json import PIECE
from router.written_body import WrittenBody


class Phase(enum.IntEnum):
    """The phases of a call to a provider, by which we tell who is at fault if it fails."""

    #: The request is being made of what the caller sent. What fails here is the caller's.
    BUILDING = 0
    #: It was made and given to the HTTP client. What fails here is a URL or header that cannot be sent.
    SENDING = 1
    #: The network was asked, in vain.
    REACHED = 2
    #: The provider answered with a status.
    ANSWERED = 3


#: The field in which providers have the chat: by it a request that asks for an answer is told from one for a token.
_CHATS = ("messages", "contents")

#: Most bytes of a stand-in.
_MOST_STAND_IN = 64


@dataclass(frozen=True, slots=True)
class Additions:
    """Says what is written into the body that LiteLLM makes of a request.

    Attributes:
        fields: the fields that LiteLLM does not translate. One that LiteLLM writes itself stays as LiteLLM has it.
        left_out: the names of the fields that this provider is not sent.
        contents: by the index of a message its content, which has parts that LiteLLM does not know.
        roles: the role of each message.
        stand_ins: by its stand-in a long text, such as a picture in base64, that LiteLLM does not get to see: it would
            write all of it in one step, during which no other thread runs.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    contents: Mapping[int, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Return whether the body stays as LiteLLM makes it."""
        return not self.fields and not self.contents and not self.stand_ins

    def pieces_of(self, content: bytes) -> list[bytes]:
        """Return a body in pieces, with the long texts in place of their stand-ins."""
        if not self.stand_ins:
            return [content]
        pieces = []
        for piece in re.split(b"(%b)" % b"|".join(map(str.encode, self.stand_ins)), content):
            text = self.stand_ins.get(piece.decode("latin-1")) if len(piece) <= _MOST_STAND_IN else None
            if text is None:
                pieces.append(piece)
            else:
                pieces += [_json(text[at : at + PIECE])[1:-1] for at in range(0, len(text), PIECE)]
        return pieces

    def is_lost_in(self, content: bytes) -> bool:
        """Return whether a body has stand-ins, which must not be sent."""
        return any(stand_in.encode() in content for stand_in in self.stand_ins)

    def put_into(self, content: bytes) -> bytes | None:
        """Return the body of a request with the additions; None if it is not the JSON of a chat that they belong to."""
        if not self.fields and not self.contents:
            return content if is_chat(content) else None
        if not self.contents and self._are_new_in(content):
            members = (b",%b:%b" % (_json(key), _json(value)) for key, value in self.fields.items())
            return b"".join((content.rstrip()[:-1], *members, b"}"))
        return self._put_into(content)

    def _are_new_in(self, content: bytes) -> bool:
        """Return whether the body is that of a chat and can have none of the fields, as far as is seen undecoded."""
        may_be_new = content.startswith(b"{") and is_chat(content)
        return (
            may_be_new and not any(_json(key) in content for key in self.fields) and all(map(str.isascii, self.fields))
        )

    def _put_into(self, content: bytes) -> bytes | None:
        try:
            found = read_object(content)
        except (ValueError, RecursionError):
            return None
        if not any(name in found.fields for name in _CHATS):
            return None
        changes = {key: _json(value) for key, value in self.fields.items() if key not in found.fields}
        if self.contents:
            messages: Any = found.fields.get("messages")
            if not self._are_these(messages):
                return None
            whole = [{**one, "content": self.contents.get(at, one.get("content"))} for at, one in enumerate(messages)]
            changes["messages"] = json_in_pieces(whole)
        return WrittenBody(content, found.at).changed(changes).whole()

    def _are_these(self, messages: Any) -> bool:
        """Return whether the messages of a body are those of the request, one for one."""
        are_messages = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
        return are_messages and tuple(one.get("role") for one in messages) == self.roles


@dataclass(slots=True)
class Call:
    """Records how far one call of a provider through LiteLLM came, and the bounds of its answer.

    Attributes:
        max_answer_bytes: as `Candidate` has it.
        streamed: whether the answer is a stream, which may be longer.
        has_key: whether it is made with a key.
        is_rehearsal: whether it is only built, and not sent.
        is_openai: whether it may go to OpenAI's own host.
        additions: what is written into the body that LiteLLM makes.
        has_additions: whether that was done.
        who: the candidate, as messages name it.
        phase: how far it came.
        status: the HTTP status of the last answer; None before there was one.
        refusal: our own error, of an answer beyond its bound or a key that must not be sent, because LiteLLM would make
            something else of it.
        notes: what is learnt of the call while it runs.
        report: makes our error of one that the provider reports in an answer of status 200.
        error_body: the beginning of the body of the last error.
        has_usage: whether the answer says how many tokens it has, in any provider's words.
        n_ended: how many choices of a stream said why they ended.
        aside: the large parts of an answer that LiteLLM does not get to see.
    """

    max_answer_bytes: int
    streamed: bool
    has_key: bool = True
    is_rehearsal: bool = False
    is_openai: bool = True
    additions: Additions = field(default_factory=Additions)
    has_additions: bool = False
    who: str = "the candidate"
    phase: Phase = Phase.BUILDING
    status: int | None = None
    refusal: DispatchError | None = None
    notes: CallNotes = field(default_factory=CallNotes)
    report: Callable[[ReportedError, CallNotes], Awaitable[DispatchError]] | None = None
    error_body: bytearray = field(default_factory=bytearray)
    has_usage: bool = False
    n_ended: int = 0
    aside: SetAside = field(default_factory=SetAside)

    @property
    def max_bytes(self) -> int:
        """The most bytes that are read of a successful answer; a stream may be longer than a whole answer."""
        return self.max_answer_bytes * (STREAM_FACTOR if self.streamed else 1)

    @property
    def is_success(self) -> bool:
        """Return whether the provider answered with a status of the 200s."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return the names of the fields of the request that the provider is not sent."""
        lost = () if self.has_additions else self.additions.fields
        return tuple(sorted({*self.additions.left_out, *lost}))


def is_chat(content: bytes) -> bool:
    """Return whether the body of a request of LiteLLM asks for an answer, and not, for example, for a token."""
    return any(_json(name) in content for name in _CHATS)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=dict).encode()

"""Say what the request path needs to know of an API format (`AnswerFormat`), and count the tokens of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

#: The largest count that is believed. No model's window is nearly as large, so more is a mistake of the upstream, and
#: its cost is as unknown as that of a count below zero.
_MOST_TOKENS = 100_000_000


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """Holds the tokens of one answer as its provider counted them: input, output, and input from the prompt cache.

    `cached` of the `input` tokens were read from the provider's prompt cache.
    """

    input: int
    output: int
    cached: int


#: Takes the chunks of one stream in order, and returns whether the answer is whole so far.
Watcher: TypeAlias = Callable[[Mapping[str, Any]], bool]

#: Takes the chunks of one stream in order, and returns each with what some upstreams leave out.
Mender: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

#: Takes one answer, or the pieces of a stream in order, and returns the counts with the piece that completes them.
UsageReader: TypeAlias = Callable[[Mapping[str, Any]], AnswerTokens | None]


class AnswerFormat(Protocol):
    """Reads answers of one API, whole or in the pieces of a stream. The pieces are called chunks by all formats."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong with the shape of an answer or of a chunk, as in "no chat completion", or None."""

    def mender(self) -> Mender:
        """Return a new function that gives the chunks of one stream what every client relies on."""

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text that an answer or a chunk brings, or an empty text."""

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a chunk brings text, a tool call or an end, after which no other candidate may take over."""

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a chunk says why the answer, or one of its choices, ended."""

    def watcher(self) -> Watcher:
        """Return a new watcher of one stream, which says whether every part of the answer that has begun has ended."""

    def tally(self) -> UsageReader:
        """Return a new counter of tokens for one answer or one stream."""


def tokens_of_usage(usage: Any, read: str, written: str) -> AnswerTokens | None:
    """Return the tokens in a `usage` of one of OpenAI's APIs, or None if it does not say them.

    read, written: what the API calls the tokens of the input and of the output.
    """
    if not isinstance(usage, Mapping):
        return None
    details = usage.get(f"{read}_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    n_read, n_written = as_count(usage.get(read)), as_count(usage.get(written))
    return None if n_read is None or n_written is None else AnswerTokens(n_read, n_written, as_count(cached) or 0)


def as_count(value: Any) -> int | None:
    """Return a number of tokens as a whole number from 0 to 100 million, or None for anything else.

    What an answer cost whose count is None is unknown.
    """
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return int(value) if is_count else None

"""Search with a regular expression that somebody else wrote, within a bounded time."""

from __future__ import annotations

import importlib
from typing import Any

from router.collecting.graders.base import GraderError
from router.quoting import quoted

#: Seconds after which a search is given up. A pattern without catastrophic backtracking needs milliseconds.
SEARCH_S = 1.0

#: The longest pattern, in characters.
MAX_PATTERN = 10_000


class PatternFaultError(GraderError):
    """A regular expression cannot be compiled, or it takes too long on an answer. The message says which."""


def compiled(pattern: str, *, ignore_case: bool = False) -> Any:
    """Return a compiled pattern of the library `regex`, whose `search` takes a timeout.

    Raises PatternFaultError if it is no regular expression, and GraderError if the library is not installed.
    """
    try:
        regex = importlib.import_module("regex")
    except ImportError as error:
        raise GraderError(
            "patterns need the library regex; install it with `pip install 'elle-router[collect]'`."
        ) from error
    if len(pattern) > MAX_PATTERN:
        raise PatternFaultError(f"a pattern must have at most {MAX_PATTERN:,} characters, got {len(pattern):,}")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError, OverflowError) as error:
        raise PatternFaultError(f"{quoted(pattern)} is no regular expression: {error}") from error


def found(pattern: Any, text: str, *, whole: bool = False) -> bool:
    """Return whether a compiled pattern matches somewhere in a text, or the whole of it.

    Raises PatternFaultError after `SEARCH_S` seconds.
    """
    search = pattern.fullmatch if whole else pattern.search
    try:
        # `concurrent` lets other threads run meanwhile.
        return search(text, timeout=SEARCH_S, concurrent=True) is not None
    except TimeoutError as error:
        raise PatternFaultError(f"the pattern takes more than {SEARCH_S:g} s on this answer") from error

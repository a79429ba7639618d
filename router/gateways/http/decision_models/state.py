"""Find the chat in the `state` that a decision model is asked about (`chat_in_state`).

LiteLLM's complexity router (1.110, `_build_classifier_user_payload`) wraps the prompt in words of its own:

    Caller system prompt, quoted as task context:
    ...
    Recent conversation (context only, do not classify these):
    [1] user: ...
    Conversation so far: ~1200 tokens across the request
    Classify this message:
    ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import kind_of
from router.values import Message

_ASK = "\nClassify this message:\n"
_SYSTEM = "\nCaller system prompt, quoted as task context:\n"
_TURNS = "\nRecent conversation (context only, do not classify these):\n"
_LENGTH = re.compile(r"\nConversation so far: ~\d+ tokens across the request\Z")
#: A turn before the newest one; the role is there if turns of the assistant are quoted too.
_TURN = re.compile(r"^\[(\d{1,4})\] (?:(user|assistant): )?", re.MULTILINE)

#: The other way in which clients of LiteLLM put a system prompt before the prompt.
_SYSTEM_BEFORE, _REQUEST = "System prompt:\n", "\n\nRequest:\n"


def chat_in_state(state: Any, field: str = "state") -> tuple[Message, ...]:
    """Return the chat that a state stands for, oldest message first.

    A text is what LiteLLM wraps, or else the prompt itself. A list of messages, or an object with `messages`, is the
    chat. Any other JSON value is judged as its text. `field` is the name of the state in the request.

    Raises InvalidRequestError for an empty state.
    """
    messages = state.get("messages") if isinstance(state, Mapping) else state
    if isinstance(messages, list) and messages and all(isinstance(one, Mapping) and "role" in one for one in messages):
        return tuple(messages)
    if isinstance(state, str) and state.strip():
        text = state
    elif isinstance(state, Mapping | list) and state:
        text = json.dumps(state, ensure_ascii=False)
    else:
        got = "none" if isinstance(state, str) else kind_of(state)
        raise InvalidRequestError(f"{field} must be the text to judge, or a chat, got {got}.", field=field)
    return _unwrapped(text)


def _unwrapped(text: str) -> tuple[Message, ...]:
    # Without context in front, the first mark is LiteLLM's. Behind context it is the last one, because turns that are
    # quoted may hold the same words.
    at = 0 if text.startswith(_ASK) else text.rfind(_ASK)
    if at > 0 and text.startswith((_SYSTEM, _TURNS)):
        return (*_context(text[:at]), _said("user", text[at + len(_ASK) :]))
    if at == 0:
        return (_said("user", text[len(_ASK) :]),)
    if text.startswith(_SYSTEM_BEFORE) and _REQUEST in text:
        system, _, prompt = text.removeprefix(_SYSTEM_BEFORE).partition(_REQUEST)
        return (_said("system", system), _said("user", prompt))
    return (_said("user", text),)


def _context(text: str) -> tuple[Message, ...]:
    """Return the system prompt and the turns in what stands before the newest message."""
    # One line feed belongs to the mark that follows, and one joins the blocks.
    text = _LENGTH.sub("", text.removesuffix("\n")).removesuffix("\n")
    before, mark, turns = text.rpartition(_TURNS)
    if not mark:
        before, turns = text, ""
    system = before.removeprefix(_SYSTEM).removesuffix("\n") if before.startswith(_SYSTEM) else ""
    messages = [_said("system", system)] if system.strip() else []
    starts: list[re.Match[str]] = []
    for start in _TURN.finditer(turns):
        # Only numbers in order begin a turn; a list in a turn may begin lines in the same way.
        if int(start[1]) == len(starts) + 1:
            starts.append(start)
    for number, start in enumerate(starts, 1):
        end = starts[number].start() if number < len(starts) else len(turns)
        messages.append(_said(start[2] or "user", turns[start.end() : end].removesuffix("\n")))
    return tuple(messages)


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}

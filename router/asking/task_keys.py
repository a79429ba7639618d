"""Read the key of the task that a request belongs to, from what the caller says or from its system prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.tasks.keys import key_fault, system_prompt_key
from router.asking.turns import read_turns
from router.errors import InvalidRequestError
from router.values import RouteQuery

#: The header, and the key of gRPC metadata, that names the task.
TASK_HEADER = "x-elle-task"

_SYSTEM_ROLES = frozenset({"system", "developer"})
#: Fields of a body that hold the system prompt: of Anthropic Messages, and of OpenAI Responses.
_SYSTEM_FIELDS = ("system", "instructions")


def task_of(given: str, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Return the key of the task that a request belongs to, or an empty text if it names none. Every door uses this.

    Args:
        given: a key that the caller stated in the field `task` of the request; it is preferred to all others.
        headers: the headers of the call, with names in any case; `TASK_HEADER` comes next.
        parameters: the other fields of the body; `metadata.task` comes last, if it is text.

    Raises InvalidRequestError, which does not repeat the key, for one of more than 256 bytes or of several lines.
    """
    key, where = given, "task"
    if not key and headers:
        key, where = next((value for name, value in headers.items() if name.lower() == TASK_HEADER), ""), TASK_HEADER
    if not key and parameters:
        metadata = parameters.get("metadata")
        found = metadata.get("task") if isinstance(metadata, Mapping) else None
        key, where = found if isinstance(found, str) else "", "metadata.task"
    if key and (fault := key_fault(key)):
        raise InvalidRequestError(f"{where} must {fault}.", field=where)
    return key


def task_of_system_prompt(query: RouteQuery) -> str:
    """Return the key of the task that the system prompt of a request stands for, or an empty text without one.

    The chat must have been read before (`router.asking.ask.extract`), which finds what is malformed.
    """
    said = [message for message in query.messages if message.get("role") in _SYSTEM_ROLES]
    texts = [turn.text for turn in read_turns(said)] if said else []
    for name in _SYSTEM_FIELDS:
        texts += _texts(query.parameters.get(name))
    return system_prompt_key("\n\n".join(texts)) if any(text.strip() for text in texts) else ""


def _texts(value: Any) -> list[str]:
    """Return the texts of a system prompt outside of the messages: one text, or a list of blocks with a text each."""
    if isinstance(value, str):
        return [value]
    blocks = value if isinstance(value, list | tuple) else ()
    texts = (block.get("text") for block in blocks if isinstance(block, Mapping))
    return [text for text in texts if isinstance(text, str)]

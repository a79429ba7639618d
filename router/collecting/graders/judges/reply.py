"""Read the verdict of a judge out of its reply, in one strict form and in no other (`verdict_in`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from probes.bounded.json_keys import EachKeyOnce
from router.plain_json import NotPlainJsonError, loads

#: A reply of more characters holds more than a verdict.
MAX_REPLY_CHARACTERS = 20_000

_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


def verdict_in(reply: str, verdicts: tuple[str, ...] | tuple[int, ...]) -> str | int | None:
    """Return the verdict in a judge's reply, or None for a reply that is anything but what was asked for.

    The whole reply must be one JSON object with a `verdict` that is one of `verdicts`, at most beside a `reason`; a
    code fence around it is allowed. Nothing is searched for in running text, because the text may quote an answer.
    """
    if len(reply) > MAX_REPLY_CHARACTERS:
        return None
    fenced = _FENCED.fullmatch(reply.strip())
    try:
        # An object that names a key twice could mean two verdicts.
        found = loads(fenced[1] if fenced else reply, EachKeyOnce)
    except NotPlainJsonError:
        return None
    if not isinstance(found, dict) or not {"verdict"} <= found.keys() <= {"verdict", "reason"}:
        return None
    if not isinstance(found.get("reason", ""), str):
        return None
    verdict = found["verdict"]
    # In Python `True == 1`, and 1.0 is in (1, 2).
    return next((one for one in verdicts if type(one) is type(verdict) and one == verdict), None)


def response_format(verdicts: tuple[str, ...] | tuple[int, ...]) -> Mapping[str, Any]:
    """Return OpenAI's `response_format` that lets a judge reply in this form only."""
    kind = "string" if isinstance(verdicts[0], str) else "integer"
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "verdict": {"type": kind, "enum": list(verdicts)}},
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}

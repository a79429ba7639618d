"""Check that a prompt can be learnt from: it is readable and complete, and its log did not mask it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from probes.bounded.text import decode_json
from router.asking.ask import Ask, extract
from router.errors import InvalidRequestError
from router.tuning.outcomes.adapters.collection import NO_PROMPT, ImportedAnswer, UnusableRowError, valid
from router.tuning.outcomes.records import MAX_PROMPT_BYTES
from router.values import RouteQuery

REDACTED = "prompt redacted by the log"
CUT = "prompt cut short by the log"

#: Marks in texts that were cut because they were too long, by LiteLLM's database and loggers or Langfuse's clients.
_CUT_MARK = re.compile(
    r"\.\.\. ?\((litellm_)?truncated (skipped )?\d+ chars|\.\.\.truncated by litellm, this logger does not support|"
    r"<truncated due to size exceeding limit>"
)

#: The longest text that may be a mask, in characters.
_LONGEST_MASK = 200

_BLACKED_OUT = r"redact|mask|remov|hidden|anonymi[sz]|scrub|omit|filter|censor|withheld|confidential"

#: A text that a log writes in place of the prompt: `redacted-by-litellm`, `[content removed]`, `*****`, or a digest.
_MASK = re.compile(
    rf"[\[<][^\[\]<>\"']*({_BLACKED_OUT})[^\[\]<>\"']*[\]>]|"
    r"[({*_\"'\s]*(redacted|masked|removed|hidden|anonymi[sz]ed|scrubbed|omitted|filtered|censored)"
    r"([ _-]*by[ _-]*\w+)?[)}*_.\"'\s]*|"
    r"[\w-]*(redacted|anonymi[sz]ed)[\w-]*|[*\u2588xX\u2022]{3,}|(sha\d+[:-])?[0-9a-f]{32,128}",
    re.IGNORECASE,
)


def check_prompt(answer: ImportedAnswer) -> Ask:
    """Check the prompt of an answer, and return its ask as the service would extract it.

    Raises UnusableRowError if it has no text.
    """
    messages = answer.messages if answer.messages is not None else [{"role": "user", "content": answer.prompt}]
    if not answer.prompt and not answer.messages:
        raise UnusableRowError(NO_PROMPT)
    try:
        valid("prompt", json.dumps(messages, default=str, ensure_ascii=False))
        ask = extract(RouteQuery(tuple(messages)), max_bytes=MAX_PROMPT_BYTES)
    except (InvalidRequestError, RecursionError) as error:
        raise UnusableRowError("prompt that cannot be read", str(error)) from error
    if not ask.text.strip():
        raise UnusableRowError("prompt without text", "images, files or blanks only")
    check_text(ask, messages)
    return ask


def check_text(ask: Ask, messages: Sequence[Any]) -> None:
    """Raise UnusableRowError if the log masked the text that is judged, or cut it or a user turn of the chat short."""
    lines = [line for line in ask.text.split("\n") if line.strip()]
    if lines and all(len(line) <= _LONGEST_MASK and _MASK.fullmatch(line.strip()) for line in lines):
        raise UnusableRowError(REDACTED, lines[0])
    marks = filter(None, map(_CUT_MARK.search, (ask.text, *_user_texts(messages))))
    if (mark := next(marks, None)) is not None:
        raise UnusableRowError(CUT, mark[0])


def cut_elsewhere(answer: ImportedAnswer) -> bool:
    """Return whether the log cut a part of the chat that the probe does not judge, such as a system prompt."""
    whole = json.dumps(answer.messages, default=str, ensure_ascii=False) if answer.messages is not None else ""
    return _CUT_MARK.search(whole) is not None


def chat_of(value: Any) -> list[Any] | None:
    """Return the messages of a chat, which some logs hold as JSON text or inside an object; None if it is no chat."""
    value = decode_json_text(value)
    if isinstance(value, Mapping):
        value = decode_json_text(value.get("messages"))
    is_chat = isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    return [without_nulls(one) for one in value] if is_chat else None


def answer_in(value: Any) -> str | None:
    """Return the text of an answer that a log holds as text, as a message, or as a whole response; None if it has none.

    Responses have the shape of OpenAI's chat completions, text completions or Responses API.
    """
    value = decode_json_text(value)
    if isinstance(value, str):
        return value or None
    found = mapping(value)
    choices, output = found.get("choices"), found.get("output")
    if isinstance(choices, list) and choices:
        return answer_in(mapping(choices[0]).get("message") or mapping(choices[0]).get("text"))
    if isinstance(output, list):
        return answer_in([part for one in output for part in listed(mapping(one).get("content"))])
    if isinstance(value, list):
        return "".join(str(mapping(part).get("text") or "") for part in value) or None
    return answer_in(found["content"]) if found.get("content") else None


def without_nulls(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without its null fields, which parquet adds."""
    return {name: value for name, value in message.items() if value is not None}


def decode_json_text(value: Any) -> Any:
    """Return the object or list that a JSON text holds, as some exports write it; else the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            return decode_json(value)
        except ValueError:
            return value
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object that is given as JSON text or as pairs, which is how parquet holds it; else an empty object."""
    value = decode_json_text(value)
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return {str(key): one for key, one in value}
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """Return a list, which may be given as JSON text; an empty list for anything else."""
    value = decode_json_text(value)
    return value if isinstance(value, list) else []


def _user_texts(messages: Sequence[Any]) -> list[str]:
    """Return the texts of the user turns of a chat. Pictures may be cut, because the probe judges only texts."""
    texts: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) and message.get("role") == "user" else None
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [str(part["text"]) for part in parts if isinstance(part, Mapping) and part.get("text")]
    return texts

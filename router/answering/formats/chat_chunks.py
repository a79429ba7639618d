"""Mend, complete and join the chunks of a streamed chat completion, which upstreams send in many ways."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from router.answering.formats.readable_answers import readable_answer

#: The reason of the end of an answer, and that of one that calls tools.
_STOP, _CALLS_TOOLS = "stop", "tool_calls"


def chunk_of(answer: Any) -> Any:
    """Return a whole chat completion as the only chunk of its stream; anything else as it is.

    Some upstreams answer in one piece although a stream was asked for.
    """
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        return answer
    streamed = []
    for choice in choices:
        message = choice.get("message")
        rest = {key: value for key, value in choice.items() if key != "message"}
        streamed.append({**rest, "delta": message} if isinstance(message, Mapping) else choice)
    return {**answer, "object": "chat.completion.chunk", "choices": streamed}


def chat_mender() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that gives the chunks of one stream what every client relies on and some upstreams leave out.

    These are the list of choices and the `index` of each call of a tool, by which clients put its parts together.
    """
    seen: dict[str, dict[str, int]] = {}

    def mend(chunk: dict[str, Any]) -> dict[str, Any]:
        choices = chunk.get("choices")
        if choices is None:
            return {**chunk, "choices": []}
        if not any(_calls(choice) for choice in choices):
            return chunk
        begun = [seen.setdefault(str(choice.get("index")), {}) for choice in choices]
        return {**chunk, "choices": list(map(_indexed, choices, begun))}

    return mend


def has_ended(choice: Mapping[str, Any]) -> bool:
    """Return whether a choice says why it ended. Some providers send an empty reason, or the word null, until then."""
    return choice.get("finish_reason") not in (None, "", "null")


def _calls(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of tools in the delta of a choice."""
    calls = (choice.get("delta") or {}).get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _indexed(choice: dict[str, Any], seen: dict[str, int]) -> dict[str, Any]:
    """Return a choice whose calls have an index. `seen` holds the index of each call that has begun, by its id."""
    calls = []
    for call in _calls(choice):
        index, name = call.get("index"), call.get("id")
        last = max(seen.values(), default=-1)
        if not isinstance(index, int):
            # A part without an id belongs to the call that began last.
            is_named = isinstance(name, str) and name
            index = seen.get(name, last + 1) if is_named else max(last, 0)  # type: ignore[arg-type]
        if index not in seen.values():
            seen[str(name)] = index
        calls.append(call if call.get("index") == index else {**call, "index": index})
    return {**choice, "delta": {**choice["delta"], "tool_calls": calls}} if calls else choice


def with_usual_fields(body: dict[str, Any], model: str, *, streamed: bool) -> dict[str, Any]:
    """Return a chat completion, or a chunk of one, in the form in which it can be translated into another API.

    Ids, times and names of models that are missing are filled in, and a list of content parts becomes text.
    """
    ready = readable_answer({**body, "choices": body.get("choices") or []}, streamed=streamed)
    choices = [_with_text(choice) for choice in ready["choices"]]
    made = {**ready, "model": ready.get("model") or model, "choices": choices}
    if not isinstance(body.get("usage"), dict):
        made.pop("usage", None)
    return made


def _with_text(choice: dict[str, Any]) -> dict[str, Any]:
    changed = dict(choice)
    for part in ("delta", "message"):
        said = choice.get(part)
        content = said.get("content") if isinstance(said, Mapping) else None
        if isinstance(said, Mapping) and isinstance(content, list):
            texts = [one.get("text") for one in content if isinstance(one, Mapping)]
            changed[part] = {**said, "content": "".join(text for text in texts if isinstance(text, str))}
    return changed


def answer_to_translate(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Return a whole chat completion as `ready_to_translate` yields chunks."""
    ready = with_usual_fields(body, model, streamed=False)
    for choice in ready["choices"]:
        if choice.get("finish_reason") in (None, _STOP):
            choice["finish_reason"] = _CALLS_TOOLS if (choice.get("message") or {}).get("tool_calls") else _STOP
    return ready


async def ready_to_translate(
    chunks: AsyncGenerator[dict[str, Any], None], model: str
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield chunks with their usual fields, of which one says why the answer ended.

    An answer that calls tools and ends with `stop` ends with `tool_calls`: by that agents know that they must go on.
    """
    calls_tools = is_over = False
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            ready = with_usual_fields(chunk, model, streamed=True)
            for choice in ready["choices"]:
                calls_tools = calls_tools or bool(_calls(choice))
                is_over = is_over or has_ended(choice)
                if calls_tools and choice.get("finish_reason") == _STOP:
                    choice["finish_reason"] = _CALLS_TOOLS
            yield ready
    if not is_over:
        end = {"index": 0, "delta": {}, "finish_reason": _CALLS_TOOLS if calls_tools else _STOP}
        yield with_usual_fields({"object": "chat.completion.chunk", "choices": [end]}, model, streamed=True)


def joined_texts(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chunks of a chat completion with the texts of chunks that bring nothing else in one chunk each."""
    joined: list[dict[str, Any]] = []
    texts: list[str] = []
    for chunk in chunks:
        text = _only_text(chunk)
        if text is None or not texts:
            _put_text(joined, texts)
            joined.append(chunk)
            texts = [] if text is None else [text]
        else:
            texts.append(text)
    _put_text(joined, texts)
    return joined


def _put_text(joined: list[dict[str, Any]], texts: list[str]) -> None:
    """Give the last chunk the text of the chunks that were left out behind it."""
    if len(texts) > 1:
        last = joined[-1]
        choice = last["choices"][0]
        joined[-1] = {**last, "choices": [{**choice, "delta": {**choice["delta"], "content": "".join(texts)}}]}


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk that has one choice with a text and nothing else, or None for any other chunk."""
    choices = chunk.get("choices") or []
    if len(choices) != 1 or choices[0].get("finish_reason") or choices[0].get("logprobs") or chunk.get("usage"):
        return None
    delta = choices[0].get("delta") or {}
    text = delta.get("content")
    others = any(value for key, value in delta.items() if key not in {"content", "role"})
    return text if isinstance(text, str) and not others else None

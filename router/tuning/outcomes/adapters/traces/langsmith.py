"""Read runs that LangSmith exports (`list_runs`, or its bulk export), with feedback on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    FAILED,
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    amount,
    first,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import add_answers
from router.tuning.outcomes.adapters.prompts import chat_of, decode_json_text, listed, mapping
from router.tuning.outcomes.adapters.traces.joining import TracedCall, TraceFeedback, join_feedback, label_or_score
from router.tuning.outcomes.records import Row

#: What LangChain calls the speakers of a chat.
_ROLES = {
    "human": "user", "humanmessage": "user", "user": "user", "ai": "assistant", "aimessage": "assistant",
    "assistant": "assistant", "system": "system", "systemmessage": "system", "tool": "tool", "toolmessage": "tool",
}  # fmt: skip


def read_langsmith(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the runs of `run_type` llm, with the feedback on them or on their trace.

    The prompt is `inputs.messages`, in the shape of OpenAI or of LangChain, or else `inputs.prompts` or another text.
    The model is `ls_model_name` in the metadata, or else `model` of the parameters of the call. Runs with an `error`
    are failed calls. The session is `session_id`, `thread_id` or `conversation_id` of the metadata; the field
    `session_id` of a run is its project. The scores are `avg` of `feedback_stats`, by name, and records of feedback
    (`run_id`, `key`, `score` or `value`), which may stand in a file of their own.

    Raises DataError if there is feedback of several names and none was chosen.
    """
    feedback, calls = TraceFeedback(), []
    for row in (row for path in paths for row in collection.rows(path)):
        values = row.values
        if "run_type" not in values and "key" in values:
            score = label_or_score(values.get("score"), values.get("value"), "feedback", str(values["key"]))
            feedback.add(str(first(values, "run_id", "trace_id")), score)
            continue
        if "run_type" not in values:
            collection.leave_out(row.place, "neither run nor feedback", f"fields {', '.join(map(str, values))}")
            continue
        if str(values["run_type"]).lower() != "llm":
            collection.skipped["runs that call no model"] += 1
            _of_trace(values, feedback)
            continue
        with collection.row(row.place):
            calls.append(_call(row))
    add_answers(join_feedback(calls, feedback, collection), collection, score_name, scored=scored)


def is_langsmith(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a run of LangSmith, or feedback on one."""
    return {"run_type", "inputs"} <= row.keys() or {"run_id", "key", "score"} <= row.keys()


def _call(row: Row) -> TracedCall:
    values = row.values
    if values.get("error"):
        raise UnusableRowError(FAILED)
    extra, inputs = mapping(values.get("extra")), mapping(values.get("inputs"))
    metadata, parameters = mapping(extra.get("metadata")), mapping(extra.get("invocation_params"))
    chat, text = _asked(inputs)
    model = first(metadata, "ls_model_name") or first(parameters, "model", "model_name")
    answer = ImportedAnswer(
        place=row.place,
        model=text_of("model", model),
        scores=(),
        prompt=text,
        messages=chat,
        group=str(values.get("session_name") or ""),
        cost_usd=amount("total_cost", values.get("total_cost")),
        input_tokens=amount("prompt_tokens", values.get("prompt_tokens")) or None,
        output_tokens=amount("completion_tokens", values.get("completion_tokens")) or None,
        asked_at=time_of(values, "start_time"),
        session_id=str(first(metadata, "session_id", "thread_id", "conversation_id") or ""),
    )
    return TracedCall(answer, str(values.get("id") or ""), str(values.get("trace_id") or ""), _stats(values))


def _stats(values: Mapping[str, Any]) -> dict[str, list[RawScore]]:
    stats = mapping(values.get("feedback_stats"))
    means = {str(name): mapping(one).get("avg") for name, one in stats.items()}
    source = "`avg` of feedback_stats {!r}"
    return {name: [RawScore(avg, source.format(name), name)] for name, avg in means.items() if avg is not None}


def _of_trace(values: Mapping[str, Any], feedback: TraceFeedback) -> None:
    """Take the feedback on the run that a trace begins with, whose id is that of the trace."""
    if values.get("id") is not None and str(values.get("id")) == str(values.get("trace_id")):
        for scores in _stats(values).values():
            for raw in scores:
                feedback.add(str(values["trace_id"]), raw)


def _asked(inputs: Mapping[str, Any]) -> tuple[list[Any] | None, str | None]:
    """Return the chat or the text of the inputs of a run."""
    given = listed(inputs.get("messages"))
    # LangChain sends several chats at a time, each in a list of its own.
    given = listed(given[0]) if len(given) == 1 and isinstance(given[0], list) else given
    chat = chat_of([_message(one) for one in given]) if given else None
    if chat is not None:
        return chat, None
    prompts = listed(inputs.get("prompts"))
    text = prompts[0] if len(prompts) == 1 else first(inputs, "prompt", "input", "question")
    inner = chat_of(text)
    if inner is None and not isinstance(text, str):
        raise UnusableRowError(NO_PROMPT, f"inputs with {', '.join(map(str, inputs)) or 'nothing'}")
    return inner, None if inner else text


def _message(value: Any) -> Any:
    """Return a message of LangChain in the shape of OpenAI; any other message stays as it is."""
    message = mapping(decode_json_text(value))
    inside = mapping(message.get("kwargs")) or mapping(message.get("data")) or message
    kind = listed(message.get("id"))[-1:] or [inside.get("type") or message.get("type")]
    role = _ROLES.get(str(kind[0]).lower())
    return value if "role" in message or role is None else {"role": role, "content": inside.get("content")}

"""Read the prompts of a log, and the answers in it, in every shape that `elle import` knows (`read_prompt_log`)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.collecting.calls.panel import Panel
from router.collecting.calls.store import digest
from router.collecting.values import Feedback, ModelAnswer, Sample
from router.plain_json import whole_text
from router.tuning.outcomes.adapters.collection import Collection, ImportedAnswer, UnusableRowError
from router.tuning.outcomes.adapters.formats import Reading, read_format, recognise_format
from router.tuning.outcomes.adapters.prompts import check_prompt, decode_json_text
from router.tuning.outcomes.records import Place, number_of
from router.values import Message

_NO_TEXT_ONLY = "prompts that need more than text: pictures, tools, or an answer in a given form"
_NOT_SENT = frozenset({"tools", "functions", "response_format"})
_THUMBS = {"1": 1.0, "up": 1.0, "true": 1.0, "good": 1.0, "0": 0.0, "down": 0.0, "false": 0.0, "bad": 0.0}


@dataclass
class _Entry:
    """What is known of one prompt so far, while the rows of the log are read."""

    sample: Sample
    answers: dict[str, ModelAnswer] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptLog:
    """The prompts of a log.

    Attributes:
        samples: one for each prompt, or for each time that a prompt was asked, in the order of the log.
        texts: what the probe judges of each sample.
        answers: for each sample the answers that are in the log, by the name of the model.
        left_out: rows that cannot be used, by reason.
    """

    samples: tuple[Sample, ...]
    texts: tuple[str, ...]
    answers: tuple[Mapping[str, ModelAnswer], ...]
    left_out: Mapping[str, int]

    def having(self, column: str) -> int:
        """Return how many samples have a value of this column, such as `reference`."""
        return sum(bool(getattr(sample, column)) for sample in self.samples)


def read_prompt_log(paths: Sequence[Path], panel: Panel, format_name: str | None = None) -> PromptLog:
    """Return the prompts in these files, with the answers in them under the names of the panel.

    Rows with the same `prompt_id`, or without ids the k-th answers of all models to one prompt, are one prompt. A chat
    that ends with an answer is the prompt before it, and the answer is that of the row's model.

    format_name: a format of `elle import`; None finds out by the columns.

    Raises DataError if no prompt can be used, and for files of no known format.
    """
    collection = Collection()
    format_name = format_name or recognise_format(paths, Collection())
    read_format(format_name, paths, collection, Reading(needs_scores=False))
    # What graders need stands in columns of tables only, and is no part of what other commands import.
    further = (
        {row.place: row.values for path in paths for row in Collection().rows(path)} if format_name == "table" else {}
    )
    entries, texts = _merged(collection, further, panel)
    left_out = Counter(one.why for one in collection.left_out) + collection.skipped
    if not entries:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it is empty"
        raise DataError(f"the log must hold prompts, found none: {why}.")
    samples = tuple(
        replace(entry.sample, answers={name: one.text for name, one in entry.answers.items()}, feedback=entry.feedback)
        for entry in entries.values()
    )
    return PromptLog(samples, tuple(texts), tuple(entry.answers for entry in entries.values()), dict(left_out))


def _merged(
    collection: Collection, further: Mapping[Place, Mapping[str, Any]], panel: Panel
) -> tuple[dict[str, _Entry], list[str]]:
    entries: dict[str, _Entry] = {}
    texts: list[str] = []
    met: Counter[tuple[str, str]] = Counter()
    for imported in collection.answers:
        values = further.get(imported.place, {})
        with collection.row(imported.place):
            messages, text = _chat_and_answer(imported)
            ask = check_prompt(replace(imported, prompt=None, messages=messages))
            if ask.needs or ask.unknown_parts or not _NOT_SENT.isdisjoint(imported.parameters):
                raise UnusableRowError(_NO_TEXT_ONLY)
            model = _name_of(imported.model, panel)
            same = digest("prompt", messages)[:16]
            prompt_id = imported.prompt_id or f"{same}-{met[same, model]}"
            met[same, model] += 1
            if prompt_id not in entries:
                entries[prompt_id] = _Entry(_sample(prompt_id, messages, imported.group, values))
                texts.append(ask.text)
            entry = entries[prompt_id]
            if list(entry.sample.messages) != messages:
                raise UnusableRowError("id that stands for two prompts", prompt_id)
            _note_answer(entry, model, text, imported, values)
    return entries, texts


def _chat_and_answer(imported: ImportedAnswer) -> tuple[list[Message], str | None]:
    """Return the prompt as a chat, and the answer if the row has one, also as the last message of the chat."""
    if imported.messages is None:
        return [{"role": "user", "content": imported.prompt}], imported.answer
    chat: list[Message] = [dict(message) for message in imported.messages]
    text = imported.answer
    if chat and chat[-1].get("role") == "assistant" and len(chat) > 1:
        last = chat.pop().get("content")
        text = text or (last if isinstance(last, str) else None)
    return chat, text


def _note_answer(
    entry: _Entry, model: str, text: str | None, imported: ImportedAnswer, values: Mapping[str, Any]
) -> None:
    if not model:
        return
    if text:
        tokens = [None if count is None else int(count) for count in (imported.input_tokens, imported.output_tokens)]
        answer = ModelAnswer(model, whole_text(text), None, tokens[0], tokens[1], imported.cost_usd or None)
        entry.answers.setdefault(model, answer)
    if (feedback := _feedback(values)) is not None:
        entry.feedback[model] = feedback


def _name_of(model: str, panel: Panel) -> str:
    found = panel.find(model) if model else None
    return model if found is None else found.name_in_probe


def _sample(prompt_id: str, messages: list[Message], group: str, values: Mapping[str, Any]) -> Sample:
    weight = number_of(values["weight"]) if values.get("weight") not in (None, "") else 1.0
    if weight is None or not (math.isfinite(weight) and weight > 0):
        raise UnusableRowError("weight that is no number above 0", repr(values["weight"]))
    choices = decode_json_text(values.get("choices")) or ()
    if isinstance(choices, str) or not all(isinstance(one, str) for one in choices):
        raise UnusableRowError("choices that are no list of texts", repr(choices))
    return Sample(
        prompt_id=prompt_id,
        messages=tuple(messages),
        reference=_text(values.get("reference")),
        choices=tuple(choices),
        tests=_text(values.get("tests")),
        group=group or None,
        weight=weight,
    )


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return whole_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _feedback(values: Mapping[str, Any]) -> Feedback | None:
    """Return what people did with the answer of a row, from its columns `thumb`, `rating` (0 to 1) or `retries`."""
    if values.get("thumb") not in (None, ""):
        thumb = _THUMBS.get(str(values["thumb"]).strip().lower())
        if thumb is None:
            raise UnusableRowError("thumb that is neither up nor down", repr(values["thumb"]))
        return Feedback("thumb", thumb)
    for kind, most in (("rating", 1.0), ("retries", math.inf)):
        if values.get(kind) not in (None, ""):
            number = number_of(values[kind])
            if number is None or not (math.isfinite(number) and 0 <= number <= most):
                raise UnusableRowError(f"{kind} that is out of range", repr(values[kind]))
            return Feedback("rating" if kind == "rating" else "retries", number)
    return None

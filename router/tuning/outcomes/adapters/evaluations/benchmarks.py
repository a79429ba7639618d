"""Read public routing benchmarks: RouteLLM's and RouterBench's wide tables, and MMLU-Pro's result files."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    amount,
    first,
    note_new,
    text_of,
)
from router.tuning.outcomes.adapters.prompts import decode_json_text
from router.tuning.outcomes.adapters.spelled_scores import thumb_of
from router.tuning.outcomes.records import Row, number_of

_LETTERS = "ABCDEFGHIJ"

#: Columns of RouteLLM's tables that only number the rows.
_INDEX = re.compile(r"(unnamed.*|index|idx|id|.*_id|level_\d+)?", re.IGNORECASE)

_NO_MODELS = "columns of text, which were taken for no model"


def read_routellm(paths: Sequence[Path], collection: Collection, words: Names[str] = ()) -> None:
    """Collect RouteLLM's response tables (`routellm/evals/mmlu/responses/mmlu_SUBJECT.csv`, `gsm8k_responses.csv`).

    The prompt is the column `prompt`. Every other column is a model, except indices, `*_response` and other texts. The
    score is the model's cell: true or false, a number, or one of `words`, which a score map explains. The group is
    SUBJECT in the name of the file, or else the whole name. RouteLLM's own figures leave out the prompts in its
    `contaminated_prompts.jsonl`; the user has to remove them.

    Raises DataError for a table without a prompt or without models.
    """
    for path in paths:
        rows = collection.rows(path)
        group = path.stem.removeprefix("mmlu_").removesuffix("_responses")
        columns = dict.fromkeys(name for row in rows for name in row.values)
        others = [c for c in columns if c != "prompt" and not c.endswith("_response") and not _INDEX.fullmatch(c)]
        models = [c for c in others if any(_is_verdict(row.values.get(c), words) for row in rows)]
        if "prompt" not in columns or not models or {"model", "score"} <= columns.keys():
            hint = " It looks like outcomes already: `elle fit` reads it as it is." if "score" in columns else ""
            raise DataError(
                f"{path} must have the columns prompt and one per model, with numbers or true and false, or with the "
                f"words of --score-map; got {shown(', '.join(columns), 400)}.{hint}"
            )
        collection.notes[f"{_NO_MODELS}: {', '.join(c for c in others if c not in models)}"] += len(others) - len(
            models
        )
        for row in rows:
            for model in (model for model in models if row.values.get(model) is not None):
                score = RawScore(row.values[model], "cells of the columns named like the models")
                prompt = str(row.values.get("prompt") or "")
                collection.answers.append(ImportedAnswer(row.place, model, (score,), prompt=prompt, group=group))


def _is_verdict(value: Any, words: Names[str]) -> bool:
    text = str(value).strip().casefold()
    is_number = number_of(text.removesuffix("%")) is not None
    return text in {"true", "false"} or text in words or is_number or thumb_of(value) is not None


def read_routerbench(paths: Sequence[Path], collection: Collection) -> None:
    """Collect RouterBench's wide tables (withmartian/routerbench), converted from pickle to parquet, CSV or JSONL.

    The columns that are read are `sample_id`, `prompt`, and `eval_name` as group. The texts of a prompt that is a list,
    also of one written as a Python literal, are joined by empty lines. MODEL is a model if there is a column
    `MODEL|total_cost` or `MODEL|model_response`. Its score, 0 to 1, is in the column `MODEL`, and its cost in USD in
    `MODEL|total_cost`.

    Raises DataError for a table without these columns.
    """
    known: set[tuple[Path, str]] = set()
    for path in paths:
        rows = collection.rows(path)
        columns = dict.fromkeys(name for row in rows for name in row.values)
        models = [c for c in columns if f"{c}|total_cost" in columns or f"{c}|model_response" in columns]
        if not models or not {"sample_id", "prompt"} <= columns.keys():
            raise DataError(
                f"{path} must have sample_id, prompt and pairs MODEL, MODEL|total_cost; got "
                f"{shown(', '.join(columns), 400)}."
            )
        for row in rows:
            with collection.row(row.place):
                key = text_of("sample_id", row.values.get("sample_id"))
                note_new(known, (path, key), key)
                collection.answers.extend(_routerbench_answers(row, key, models))


def _routerbench_answers(row: Row, key: str, models: Sequence[str]) -> list[ImportedAnswer]:
    return [
        ImportedAnswer(
            place=row.place,
            model=model,
            scores=(RawScore(row.values[model], "columns named like the models"),),
            prompt=_joined(row.values.get("prompt")),
            prompt_id=key,
            group=str(row.values.get("eval_name") or ""),
            cost_usd=amount(f"{model}|total_cost", row.values.get(f"{model}|total_cost")),
        )
        for model in models
        if row.values.get(model) is not None
    ]


def _joined(prompt: Any) -> str:
    if isinstance(prompt, str) and prompt.startswith("["):
        try:
            prompt = ast.literal_eval(prompt)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return str(prompt)
    return "\n\n".join(str(part) for part in prompt) if isinstance(prompt, list) else str(prompt or "")


def read_mmlu_pro(paths: Sequence[Path], collection: Collection) -> None:
    """Collect MMLU-Pro's result files (TIGER-AI-Lab/MMLU-Pro `eval_results`), and others of that style.

    The model is NAME in `model_outputs_NAME_5shots.json`, the folder of `CATEGORY_result.json`, or else the name of the
    file; `*_summary.json` is skipped. The fields that are read are `question_id`, `question`, `options`, `answer`, and
    `category` as group. The prompt is the question and a line with a letter for each option, without `N/A`. The score
    is 1 if the model chose the right answer, else 0. Its choice is `pred`, or without that field the last
    "answer is (X)" of `model_outputs`, `generated_text` or `response`. If no choice can be found, the score is 0
    (MMLU-Pro's own script then guesses at random).
    """
    for path in paths:
        if path.stem.endswith("summary"):
            collection.skipped["summary files"] += 1
            continue
        known: set[str] = set()
        for row in collection.rows(path):
            with collection.row(row.place):
                collection.answers.append(_mmlu_pro_answer(row, _mmlu_pro_model(path), known))


def _mmlu_pro_answer(row: Row, model: str, known: set[str]) -> ImportedAnswer:
    values = row.values
    options, answer, key = decode_json_text(values.get("options")), values.get("answer"), first(values, "question_id")
    if not isinstance(values.get("question"), str) or not isinstance(options, list) or not options:
        raise UnusableRowError(NO_PROMPT, f"question or options missing; fields {', '.join(values)}")
    if answer not in list(_LETTERS[: len(options)]):
        raise UnusableRowError("right answer that is no letter of its options", repr(answer))
    if key is not None:
        note_new(known, str(key))
    lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False) if option != "N/A"]
    return ImportedAnswer(
        place=row.place,
        model=model,
        scores=(RawScore(_predicted(values) == answer, "whether the predicted letter is the right one"),),
        prompt="\n".join([values["question"], *lines]),
        prompt_id=None if key is None else str(key),
        group=str(values.get("category") or ""),
    )


def _mmlu_pro_model(path: Path) -> str:
    if path.stem.endswith("_result"):
        return path.parent.name
    return re.sub(r"_\d+shots?$", "", path.stem.removeprefix("model_outputs_"))


def _predicted(values: Mapping[str, Any]) -> str | None:
    """Return the letter that a model answered, or None if its text does not show a letter.

    Raises UnusableRowError if the record holds no answer.
    """
    if "pred" in values:
        letter = str(values["pred"] or "").strip().upper()
        if letter and letter not in list(_LETTERS):
            raise UnusableRowError("prediction that is no letter", repr(values["pred"]))
        return letter or None
    given = [name for name in ("model_outputs", "generated_text", "response") if name in values]
    if not given:
        raise UnusableRowError("without an answer", "neither pred nor model_outputs, generated_text or response")
    found = re.findall(r"answer is:?\s*\**\(?([A-J])\b", str(first(values, *given) or ""), re.IGNORECASE)
    return found[-1].upper() if found else None

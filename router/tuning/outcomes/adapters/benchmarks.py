"""Public routing benchmarks: RouteLLM's and RouterBench's wide tables, MMLU-Pro's result files."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from probes.errors import DataError
from router.tuning.outcomes.adapters.files import Answer, Record, field, number, read_records

_LETTERS = "ABCDEFGHIJ"


def read_routellm(paths: Sequence[Path]) -> tuple[list[Answer], Counter[str]]:
    """RouteLLM's response tables (`routellm/evals/mmlu/responses/mmlu_SUBJECT.csv`, `gsm8k/gsm8k_responses.csv`).

    Read: `prompt`; every other column is a model, except an index, `*_response` and other text. Score: the model's
    cell, True or False. Group: SUBJECT from the file name, else the file's name. RouteLLM's own figures leave out the
    prompts in its `contaminated_prompts.jsonl`; that is for the reader to do.
    """
    answers: list[Answer] = []
    for path in paths:
        records = read_records(path)
        group = path.stem.removeprefix("mmlu_").removesuffix("_responses")
        columns = dict.fromkeys(name for _, record in records for name in record)
        models = [c for c in columns if c and c != "prompt" and not c.endswith("_response") and "Unnamed" not in c]
        if "prompt" not in columns or not models:
            raise DataError(f"{path} must have the columns prompt and one per model; got {', '.join(columns)}.")
        for where, record in records:
            for model in models:
                score = number(where, model, record.get(model))
                if score is not None:
                    answers.append(Answer(model, score, prompt=record.get("prompt") or "", group=group))
    return answers, Counter()


def read_routerbench(paths: Sequence[Path]) -> tuple[list[Answer], Counter[str]]:
    """RouterBench's wide tables (withmartian/routerbench), converted from pickle to parquet, CSV or JSONL.

    Read: `sample_id`, `prompt` (a list of texts written as a Python literal is joined by empty lines), `eval_name` as
    group, and for each model MODEL that has a column `MODEL|total_cost` or `MODEL|model_response`: score from `MODEL`
    (0 to 1), cost in USD from `MODEL|total_cost`.
    """
    answers: list[Answer] = []
    for path in paths:
        records = read_records(path)
        columns = dict.fromkeys(name for _, record in records for name in record)
        models = [c for c in columns if f"{c}|total_cost" in columns or f"{c}|model_response" in columns]
        if not models or not {"sample_id", "prompt"} <= columns.keys():
            raise DataError(
                f"{path} must have sample_id, prompt and pairs MODEL, MODEL|total_cost; got {', '.join(columns)}."
            )
        for where, record in records:
            for model in models:
                score = number(where, model, record.get(model))
                if score is not None:
                    cost = number(where, "cost", record.get(f"{model}|total_cost"))
                    answers.append(
                        Answer(
                            model,
                            score,
                            prompt=_literal(str(record["prompt"])),
                            prompt_id=str(record["sample_id"]),
                            group=str(record.get("eval_name") or ""),
                            cost_usd=cost,
                        )
                    )
    return answers, Counter()


def _literal(prompt: str) -> str:
    if not prompt.startswith("["):
        return prompt
    try:
        parts = ast.literal_eval(prompt)
    except (SyntaxError, ValueError):
        return prompt
    return "\n\n".join(str(part) for part in parts)


def read_mmlu_pro(paths: Sequence[Path]) -> tuple[list[Answer], Counter[str]]:
    """MMLU-Pro's result files (TIGER-AI-Lab/MMLU-Pro `eval_results`), and others of that style.

    Model: NAME of `model_outputs_NAME_5shots.json`, the folder of `CATEGORY_result.json`, else the file's name;
    `*_summary.json` is skipped. Read of each record: `question_id`, `question` and `options` (the prompt: the
    question, then a lettered line per option, `N/A` left out), `category` as group, `answer`. Score: 1 where `pred`,
    or without that field the last "answer is (X)" of `model_outputs`, `generated_text` or `response`, is the answer; an
    answer that cannot be told is wrong (MMLU-Pro's own script guesses at random there).
    """
    answers: list[Answer] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        if path.stem.endswith("summary"):
            skipped["summary files"] += 1
            continue
        model = _mmlu_pro_model(path)
        for where, record in read_records(path):
            if not {"question", "options", "answer"} <= record.keys():
                raise DataError(f"{where} must have question, options and answer; got {', '.join(record)}.")
            lines = [f"{a}. {o}" for a, o in zip(_LETTERS, record["options"], strict=False) if o != "N/A"]
            key = record.get("question_id")
            answers.append(
                Answer(
                    model,
                    float(_predicted(record) == record["answer"]),
                    prompt="\n".join([str(record["question"]), *lines]),
                    prompt_id=None if key is None else str(key),
                    group=str(record.get("category") or ""),
                )
            )
    return answers, skipped


def _mmlu_pro_model(path: Path) -> str:
    if path.stem.endswith("_result"):
        return path.parent.name
    return re.sub(r"_\d+shots?$", "", path.stem.removeprefix("model_outputs_"))


def _predicted(record: Record) -> str | None:
    if "pred" in record:
        return None if record["pred"] is None else str(record["pred"])
    text = str(field(record, "model_outputs", "generated_text", "response") or "")
    found = re.findall(r"answer is:?\s*\**\(?([A-J])\b", text, re.IGNORECASE)
    return found[-1].upper() if found else None

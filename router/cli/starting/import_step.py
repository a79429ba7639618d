"""Bring a log into the form that `elle collect` reads, beside a policy file with the two candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from probes.atomic_write import write_file
from router.collecting.calls.panel import Panel
from router.collecting.prompts import read_prompt_log
from router.collecting.values import ModelAnswer, Sample
from router.plain_json import json_lines
from router.policies.candidates.candidate import Candidate
from router.policies.policy_file import FixedRule, PolicyFile

_NO_ANSWERS: Mapping[str, ModelAnswer] = {}


def import_log(log: Path, out: Path, candidates: Sequence[Candidate], format_name: str | None, *, offline: bool) -> str:
    """Write the prompts of a log, with the answers and columns that are in it, and say how many there are.

    Offline the answers of the log are left out, because simulated models answer.

    Raises DataError if the log holds no prompt that can be used.
    """
    found = read_prompt_log([log], Panel(tuple(candidates)), format_name)
    answers = (_NO_ANSWERS,) * len(found.samples) if offline else found.answers
    rows = (row for pair in zip(found.samples, answers, strict=True) for row in _rows(*pair))
    write_file(out, json_lines(rows).encode())
    n_answers = sum(map(len, answers))
    left_out = "; ".join(f"{count:,} left out: {why}" for why, count in found.left_out.items())
    return f"{len(found.samples):,} prompts with {n_answers:,} answers that are there already. {left_out}".strip()


def write_candidates(out: Path, candidates: Sequence[Candidate]) -> None:
    """Write a policy file with these candidates; until one is tuned, the last of them answers everything."""
    last = candidates[-1].name
    policy = PolicyFile(
        schema="elle.policy/1",
        name="candidates",
        candidates=tuple(candidates),
        rule=FixedRule(kind="fixed", candidate=last),
        safe_default=last,
    )
    data = policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_file(out, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).encode())


def _rows(sample: Sample, answers: Mapping[str, ModelAnswer]) -> Iterator[dict[str, Any]]:
    """Yield one row for each answer to a prompt, or one without an answer if there is none."""
    known = {
        "messages": list(sample.messages),
        "prompt_id": sample.prompt_id,
        "group": sample.group,
        "reference": sample.reference,
        "choices": list(sample.choices) or None,
        "tests": sample.tests,
        "weight": sample.weight,
    }
    for model in {**answers, **(sample.feedback if answers else {})} or {"": None}:
        row = {**known, **_answered(sample, model, answers.get(model))}
        yield {name: value for name, value in row.items() if value is not None}


def _answered(sample: Sample, model: str, answer: ModelAnswer | None) -> dict[str, Any]:
    found: dict[str, Any] = {"model": model or None}
    if (feedback := sample.feedback.get(model)) is not None:
        found[feedback.kind] = feedback.value
    if answer is not None:
        paid = {name: getattr(answer, name) for name in ("cost_usd", "input_tokens", "output_tokens")}
        found |= {"answer": answer.text, **paid}
    return found

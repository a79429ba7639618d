"""Policies, answers and the command that the tests of `elle evaluate --policy` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from router.cli.main import cli

PRICES = {"small": (1.0, 2.0), "large": (10.0, 20.0)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def candidate(name: str) -> dict[str, object]:
    low, high = PRICES[name]
    prices = {"input_usd_per_million_tokens": low, "output_usd_per_million_tokens": high}
    return {"name": name, "model": f"openai/{name}", "prices": prices, "expected_output_tokens": 500}


def fixed_policy(folder: Path, **changes: object) -> Path:
    """Write a policy that is always the small model, with a profile that is always the large one, and no probe."""
    policy = {
        "schema": "elle.policy/1", "name": "mine", "candidates": [candidate("small"), candidate("large")],
        "rule": {"kind": "fixed", "candidate": "small"}, "safe_default": "large",
        "profiles": {"best": {"rule": {"kind": "fixed", "candidate": "large"}}},
    }  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(policy | changes), "utf-8")
    return path


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def answers(
    scores: dict[str, list[float | None]], *, tokens: bool = True, **columns: list[object]
) -> list[dict[str, object]]:
    """Write a row for each score that is known, with 1,000 input and 500 output tokens each."""
    rows = []
    for model, values in scores.items():
        for i, value in enumerate(values):
            if value is not None:
                row: dict[str, object] = {"prompt": f"prompt {i}", "prompt_id": str(i), "model": model, "score": value}
                row |= {"input_tokens": 1000, "output_tokens": 500} if tokens else {}
                rows.append(row | {name: column[i] for name, column in columns.items()})
    return rows


def evaluated(folder: Path, data: list[dict[str, object]], *more: object, policy: Path | None = None) -> Any:
    path = write(folder / "data.jsonl", data)
    result = run("evaluate", "--policy", policy or fixed_policy(folder), path, "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)

"""Rows of each log format that `elle import` reads, and a short way to import them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.summary import ImportSummary
from router.tuning.outcomes.datasets import Outcomes, read_outcomes

CUT = (
    "the beginning... (litellm_truncated skipped 9000 chars. Truncation is a DB storage safeguard. Full, untruncated "
    "data is logged to logging callbacks (OTEL, Datadog, etc.). To increase the truncation limit, set "
    "`MAX_STRING_LENGTH_PROMPT_IN_DB` in your env.) ...the end"
)

OLD_CUT = "the beginning... (litellm_truncated 9 chars)"


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def spend(key: str, **values: Any) -> dict[str, Any]:
    base = {
        "request_id": key, "call_type": "acompletion", "model_group": "fast", "messages": user(f"Question {key}"),
        "spend": 0.002, "prompt_tokens": 5, "completion_tokens": 6, "status": "success", "cache_hit": "False",
        "metadata": {"score": 1},
    }  # fmt: skip
    return base | values


def generation(key: str, **values: Any) -> dict[str, Any]:
    base = {
        "id": key, "trace_id": f"t-{key}", "type": "GENERATION", "input": json.dumps(user(f"Question {key}")),
        "provided_model_name": "m", "total_cost": 0.01, "usage_details": {"input": 3, "output": 4},
    }  # fmt: skip
    return base | values


def scored(key: str, value: Any = 1, **values: Any) -> dict[str, Any]:
    base = {"id": f"s-{key}", "name": "correct", "observation_id": key, "trace_id": f"t-{key}", "value": value}
    return base | {"data_type": "NUMERIC"} | values


def request(key: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": key, "method": "POST", "body": {"model": "m", "messages": user(f"Question {key}")} | body}


def output(key: str, **values: Any) -> dict[str, Any]:
    body = {"model": "m-2026", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    return {"custom_id": key, "response": {"status_code": 200, "body": body}, "error": None} | values


def question(key: str, **values: Any) -> dict[str, Any]:
    base = {"question_id": key, "question": f"Question {key}", "options": ["x", "y"], "answer": "B", "pred": "B"}
    return base | values


def wide(key: str, **values: Any) -> dict[str, Any]:
    return {"sample_id": key, "prompt": f"Question {key}", "small": 1.0, "small|total_cost": 0.1} | values


def table(key: str, **values: Any) -> dict[str, Any]:
    return {"prompt": f"Question {key}", "small": True} | values


def write(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", errors="surrogatepass")
    return path


def bring(kind: str, folder: Path, rows: list[Any], **options: Any) -> tuple[ImportSummary, Outcomes]:
    if kind == "langfuse":
        rows = [*rows, scored("good"), scored("odd")]
    if kind == "openai-batch":
        rows = [*rows, request("good")]
        options["scores"] = write(folder / "s.jsonl", [{"id": key, "score": 1} for key in ("good", "odd")])
    summary = import_outcomes(kind, [write(folder / "in.jsonl", rows)], folder / "out.jsonl", ImportOptions(**options))
    return summary, read_outcomes(folder / "out.jsonl")

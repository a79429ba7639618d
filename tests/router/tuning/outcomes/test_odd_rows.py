"""Tests of one odd row beside a good one, in every format: it is left out, counted and listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from probes.errors import DataError
from router.tuning.outcomes.adapters.summary import print_import
from tests.router.tuning.outcomes.log_rows import (
    CUT,
    OLD_CUT,
    bring,
    generation,
    output,
    question,
    spend,
    table,
    user,
    wide,
)

GOOD: dict[str, Callable[..., dict[str, Any]]] = {
    "litellm-spend-logs": spend, "langfuse": generation, "openai-batch": output, "mmlu-pro": question,
    "routerbench": wide, "routellm": table,
}  # fmt: skip

PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]

DEEP: Any = json.loads("[" * 500 + "]" * 500)

ODD: list[tuple[str, Any, str | None]] = [
    ("litellm-spend-logs", spend("odd", messages=user(PICTURE)), "prompt without text"),
    ("litellm-spend-logs", spend("odd", messages=user("  ")), "prompt that cannot be read"),
    ("litellm-spend-logs", spend("odd", messages=[{"role": "human", "content": "x"}]), "prompt that cannot be read"),
    ("litellm-spend-logs", spend("odd", messages=user(7)), "prompt that cannot be read"),
    ("litellm-spend-logs", spend("odd", messages=user("half \ud800")), "prompt that is not valid Unicode"),
    ("litellm-spend-logs", spend("odd", messages={}), "without a prompt"),
    ("litellm-spend-logs", spend("odd", messages=user("redacted-by-litellm")), "prompt redacted by the log"),
    ("litellm-spend-logs", spend("odd", messages=user("REDACTED_BY_LITELM")), "prompt redacted by the log"),
    ("litellm-spend-logs", spend("odd", messages=user("[REDACTED]")), "prompt redacted by the log"),
    ("litellm-spend-logs", spend("odd", messages=user(CUT)), "prompt cut short by the log"),
    ("litellm-spend-logs", spend("odd", messages=user(OLD_CUT)), "prompt cut short by the log"),
    ("litellm-spend-logs", spend("odd", messages=user("a... (truncated 99 chars)")), "prompt cut short by the log"),
    ("litellm-spend-logs", spend("odd", metadata={"score": DEEP}), "score that is no number"),
    ("langfuse", generation("odd", input="<truncated due to size exceeding limit>"), "prompt cut short by the log"),
    ("litellm-spend-logs", spend("odd", spend=-0.1), "spend that is no number of 0 or more"),
    ("litellm-spend-logs", spend("odd", spend="much"), "spend that is no number of 0 or more"),
    ("litellm-spend-logs", spend("odd", prompt_tokens=-1), "prompt_tokens that is no number of 0 or more"),
    ("litellm-spend-logs", spend("odd", prompt_tokens=10**400), "prompt_tokens that is no number of 0 or more"),
    ("litellm-spend-logs", spend("odd", model_group=None, model=""), "without model"),
    ("litellm-spend-logs", spend("odd", status="failure"), "failed calls"),
    ("litellm-spend-logs", spend("odd", metadata={}), "without a score"),
    ("litellm-spend-logs", spend("odd", metadata={"score": float("nan")}), "score that is no number"),
    ("litellm-spend-logs", spend("odd", call_type="aembedding", messages={}), "without a prompt"),
    ("litellm-spend-logs", spend("good"), "repeated records"),
    ("litellm-spend-logs", {"model": "m"}, "without request_id"),
    ("litellm-spend-logs", '{"request_id": "torn', "unreadable row"),
    ("litellm-spend-logs", "[" * 100_000, "unreadable row"),
    ("litellm-spend-logs", "17", "unreadable row"),
    ("langfuse", generation("odd", input=json.dumps({"question": "x"})), "input of unknown shape"),
    ("langfuse", generation("odd", input=""), "without a prompt"),
    ("langfuse", generation("odd", input="redacted-by-litellm"), "prompt redacted by the log"),
    ("langfuse", generation("odd", input="*****"), "prompt redacted by the log"),
    ("langfuse", generation("odd", total_cost=-1), "total_cost that is no number of 0 or more"),
    ("langfuse", generation("odd", provided_model_name=None), "without model"),
    ("langfuse", generation("odd", level="ERROR"), "failed calls"),
    ("langfuse", generation("good"), "repeated records"),
    ("langfuse", {"version": 1, "files": []}, "neither observation nor score nor trace"),
    ("openai-batch", output("odd"), "output of no request"),
    ("openai-batch", output("odd", response=None, error={"code": "expired"}), "failed calls"),
    ("openai-batch", output("odd", response={"status_code": 429, "body": {}}), "failed calls"),
    ("openai-batch", output("odd", response="text"), "failed calls"),
    ("openai-batch", output("good"), "repeated records"),
    ("openai-batch", {"body": {}}, "neither request nor output"),
    ("mmlu-pro", question("odd", options=None), "without a prompt"),
    ("mmlu-pro", question("odd", answer=3), "right answer that is no letter of its options"),
    ("mmlu-pro", question("odd", pred=3), "prediction that is no letter"),
    ("mmlu-pro", {k: v for k, v in question("odd").items() if k != "pred"}, "without an answer"),
    ("mmlu-pro", question("good", question="Another"), "repeated records"),
    ("routerbench", wide("odd", prompt="[]"), "without a prompt"),
    ("routerbench", wide("odd", **{"small|total_cost": -1}), "small|total_cost that is no number of 0 or more"),
    ("routerbench", wide("odd", sample_id=None), "without sample_id"),
    ("routerbench", wide("odd", prompt="[" * 5000), None),
    ("routellm", table("odd", prompt=None), "without a prompt"),
    ("routellm", table("odd", prompt=" \n"), "prompt that cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "odd", "why"), ODD)
def test_an_odd_row_is_left_out_counted_and_listed(tmp_path: Path, kind: str, odd: Any, why: str | None) -> None:
    summary, found = bring(kind, tmp_path, [GOOD[kind]("good"), odd])
    listed = tmp_path / "out.left-out.jsonl"
    if why is None:
        assert len(found) == 2
        assert not listed.exists()
        return
    assert found.texts == (found.texts[0],)
    assert found.texts[0].startswith("Question good")
    assert summary.left_out == {why: 1}
    assert summary.left_out_file == str(listed)
    (row,) = [json.loads(line) for line in listed.read_text("utf-8").split("\n") if line]
    assert (row["file"], row["line"], row["why"]) == (str(tmp_path / "in.jsonl"), 2, why)


ANYTHING: list[Any] = [
    None, True, 0, -1, 0.5, 10**400, float("nan"), float("inf"), "", "x", "true", "half \ud800", "[1, 2", "{}", [], {},
    [None], [[]], [{}], {"a": 1}, {"messages": "x"}, {"score": [1]}, DEEP, user(None), user([{"type": "text"}]),
    [{"type": "x_output", "output": {"a": DEEP}}],
]  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_anything_in_any_field_costs_one_row_or_is_asked_about(tmp_path: Path, kind: str) -> None:
    for name in GOOD[kind]("odd"):
        for value in ANYTHING:
            rows = [GOOD[kind]("good"), GOOD[kind]("odd") | {name: value}]
            try:
                summary, found = bring(kind, tmp_path, rows, force=True)
            except DataError as error:
                if "Say what each is worth" in str(error) or "must run from 0" in str(error):
                    continue
                raise
            assert found.texts[0].startswith("Question good"), (name, value)
            json.dumps(summary.to_dict(), allow_nan=False, ensure_ascii=False).encode()
            print_import(summary, Console(quiet=True))

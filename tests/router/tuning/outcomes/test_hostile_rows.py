"""Whatever stands in a field of a file, an import reads the row, leaves it out, or refuses the file with one error."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.formats import FORMATS
from router.tuning.previewing.logged_requests import read_log
from tests.router.tuning.outcomes import test_batches_and_votes as batches
from tests.router.tuning.outcomes import test_evaluations as evaluations
from tests.router.tuning.outcomes import test_traces as traces
from tests.router.tuning.outcomes.bringing import CHAT, write_rows

#: What a field may hold that nobody expects there.
ODD = (
    None,
    7,
    -1,
    1e308,
    True,
    "",
    "x",
    "[1",
    '{"a"',
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    [{"role": 3}],
    [7, "x"],
)

#: Says what the odd values are worth, so that an import goes on behind the scores.
WORDS = ("x=1", "7=1", "-1=0", "1e308=0", "1=1", "0.5=1", "0.75=1", "0.6=1", "true=1", "[1=0")

STORED = batches.TestStoredCompletions()
ROWS: dict[str, list[dict[str, Any]]] = {
    "lm-eval": [evaluations.TestLmEval().sample(0)],
    "promptfoo": [{"results": {"version": 3, "results": [evaluations.TestPromptfoo().result()], "stats": {}}}],
    "openai-evals": [
        evaluations.TestOpenAIEvals().item(),
        {"spec": {"completion_fns": ["m"]}},
        {"sample_id": "s", "event_id": 1, "type": "sampling", "data": {"prompt": CHAT}},
        {"sample_id": "s", "event_id": 2, "type": "match", "data": {"correct": True}},
    ],
    "openai-batch": [
        {"custom_id": "a", "body": {"model": "m", "messages": CHAT, "tools": []}},
        {"custom_id": "a", "response": {"status_code": 200, "body": {"model": "m", "choices": [], "usage": {}}}},
    ],
    "openai-stored": [
        STORED.completion("chatcmpl-A", metadata={"score": 1}),
        {"id": "chatcmpl-A-0", "role": "user", "content": "Hi"},
    ],
    "anthropic-batch": [batches.TestAnthropicBatch().request("a"), batches.TestAnthropicBatch().result("a")],
    "litellm-spend-logs": [
        {
            "request_id": "a", "call_type": "acompletion", "model": "m", "messages": CHAT, "spend": 1,
            "metadata": {"score": 1},
        }
    ],
    "langfuse": [{"id": "g", "trace_id": "t", "type": "GENERATION", "model": "m", "input": CHAT, "usage_details": {}}],
    "langsmith": [traces.TestLangSmith().run("a"), {"run_id": "a", "key": "correct", "score": 1}],
    "phoenix": [
        traces.TestPhoenix().flat(),
        traces.TestPhoenix().nested({"llm": {"model_name": "m"}}),
        traces.TestPhoenix().annotation(score=1),
    ],
    "helicone": [traces.TestHelicone().request("a")],
    "braintrust": [
        traces.TestBraintrust().call("c", "r", scores={"ok": 1}),
        traces.TestBraintrust().event("r", "r", scores={"ok": 1}),
    ],
    "votes": [batches.TestVotes().vote("model_a")],
    "table": [{"messages": CHAT, "model": "m", "score": 1, "session_id": "s", "answer": "far", "timestamp": 5}],
}  # fmt: skip


def spoiled(row: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each place of a row, at any depth, with each odd value that is put there."""
    inside = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
    for key, value in inside:
        for odd in ODD:
            yield (*path, key), odd
        yield from spoiled(value, (*path, key))


def put(row: Any, path: tuple[Any, ...], odd: Any) -> Any:
    changed = copy.deepcopy(row)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = odd
    return changed


def test_every_format_has_rows_here() -> None:
    benchmarks = {"routellm", "routerbench", "mmlu-pro"}
    assert set(ROWS) == set(FORMATS) - benchmarks


@pytest.mark.parametrize("name", ROWS)
def test_an_odd_value_anywhere_breaks_no_import(tmp_path: Path, name: str) -> None:
    # One file holds the row with every odd value in it, so that a test of hundreds of values takes a second.
    rows = ROWS[name]
    for number, row in enumerate(rows):
        spoilt = [put(row, path, odd) for path, odd in spoiled(row)]
        others = [other for place, other in enumerate(rows) if place != number]
        path = write_rows(tmp_path / f"m_{number}" / "samples_t_x.jsonl", *others, *spoilt)
        out = tmp_path / "out.jsonl"
        with contextlib.suppress(DataError):
            import_outcomes(name, [path], out, ImportOptions(score_map=WORDS, force=True))
        with contextlib.suppress(DataError):
            read_log([path], name)


@pytest.mark.parametrize("name", ROWS)
def test_rows_nested_beyond_reason_are_left_out(tmp_path: Path, name: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for column in ROWS[name][0]:
        text = json.dumps(ROWS[name][0] | {column: "DEEP"}).replace('"DEEP"', deep)
        path = tmp_path / "samples_t.jsonl"
        path.write_text(text + "\n", "utf-8")
        with pytest.raises(DataError):
            import_outcomes(name, [path], tmp_path / "out.jsonl", ImportOptions())


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_recognised_by_its_own_rows(tmp_path: Path, name: str) -> None:
    rows = [one for one in ROWS[name] if name != "phoenix" or "annotator_kind" not in one]
    assert read_log([write_rows(tmp_path / "org__m" / "samples_t.jsonl", *rows)]).format == name

"""Tests of outcome data: three formats give the same outcomes, and an error names every bad row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from probes.errors import DataError
from router.tuning.outcomes.datasets import read_outcomes

ROWS: list[dict[str, Any]] = [
    {"prompt": "What is 2+2?", "model": "small", "score": 1.0, "prompt_id": "a", "group": "maths", "cost_usd": 0.1},
    {"prompt": "What is 2+2?", "model": "large", "score": 1.0, "prompt_id": "a", "group": "maths", "cost_usd": 0.9},
    {"prompt": "Who was Kant?", "model": "small", "score": 0.5, "prompt_id": "007", "group": "", "cost_usd": 0.2},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_every_format_reads_alike(tmp_path: Path, suffix: str) -> None:
    outcomes = read_outcomes(write(tmp_path / f"data{suffix}", ROWS))
    assert outcomes.texts == ("What is 2+2?", "Who was Kant?")
    assert outcomes.ids == ("a", "007")
    assert outcomes.groups == ("maths", "")
    assert outcomes.models == ("large", "small")
    np.testing.assert_array_equal(outcomes.scores, [[1.0, 1.0], [np.nan, 0.5]])
    np.testing.assert_array_equal(outcomes.cost_usd, [[0.9, 0.1], [np.nan, 0.2]])
    assert np.isnan(outcomes.input_tokens).all()
    assert outcomes.sources[0].n_rows == 3


def test_chats_are_judged_as_when_serving(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello "}]
    as_list, as_text = ({"messages": m, "model": "x", "score": 1} for m in (chat, json.dumps(chat)))
    outcomes = read_outcomes(write(tmp_path / "a.jsonl", [as_list]), write(tmp_path / "b.jsonl", [as_text]))
    assert outcomes.texts == ("Hello", "Hello")


def test_without_ids_repeated_prompts_stay_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "model": model, "score": score} for model in "ab" for score in (0, 1)]
    np.testing.assert_array_equal(read_outcomes(write(tmp_path / "x.jsonl", rows)).scores, [[0, 0], [1, 1]])


def test_ids_need_to_be_distinct_within_a_file_only(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": "p", "model": "a", "score": 0, "prompt_id": "1"}])
    two = write(tmp_path / "two.jsonl", [{"prompt": "q", "model": "a", "score": 1, "prompt_id": "1"}])
    assert read_outcomes(one, two).texts == ("p", "q")


def test_models_are_chosen_in_the_order_asked_for(tmp_path: Path) -> None:
    outcomes = read_outcomes(write(tmp_path / "x.jsonl", ROWS)).select_models(["small", "large"])
    assert outcomes.models == ("small", "large")
    assert len(outcomes.complete_rows()) == 1
    with pytest.raises(DataError, match=r"among those of the data \(small, large\), got huge"):
        outcomes.select_models(["huge"])
    with pytest.raises(DataError, match="distinct"):
        outcomes.select_models(["small", "small"])


def test_several_labels_of_one_prompt_id_are_averaged(tmp_path: Path) -> None:
    again = ROWS[0] | {"score": 0.0, "cost_usd": None}
    outcomes = read_outcomes(write(tmp_path / "x.jsonl", [*ROWS, again]))
    assert outcomes.n_averaged == 1
    np.testing.assert_array_equal(outcomes.scores[0], [1.0, 0.5])
    np.testing.assert_array_equal(outcomes.cost_usd[0], [0.9, 0.1])


def changed(index: int, **changes: object) -> list[dict[str, Any]]:
    return [row | changes if i == index else row for i, row in enumerate(ROWS)]


def without(name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, score=1.5), "score must be a number, 0 to 1; line 2, the first is 1.5"),
        (changed(1, score=None), "line 2, the first is nothing. Leave out the rows of answers without one."),
        (changed(1, score=float("nan")), "line 2, the first is nan. Leave out the rows of answers without one."),
        (changed(1, score=True), "line 2, the first is true."),
        (changed(1, score={"a": 1}), "line 2, the first is an object."),
        (changed(1, score="good"), "line 2, the first is 'good'"),
        (changed(2, cost_usd=-1), "cost_usd must be a number, 0 to 1e+12; line 3"),
        (changed(2, cost_usd=1e308), "cost_usd must be a number, 0 to 1e+12; line 3"),
        (changed(2, input_tokens=1e300), "input_tokens must be a number, 0 to 1e+12; line 3"),
        (changed(0, prompt=""), "line 1: messages must hold some text"),
        (changed(0, prompt=7), "line 1: prompt must be text, got a number"),
        (changed(0, model=""), "model must not be empty, line 1"),
        (changed(1, prompt="other"), "line 2: prompt_id 'a' stands for two different prompts"),
        (changed(1, model="large\ud800"), "model must be valid Unicode text or a number; line 2, the first is"),
        (changed(1, model=["large"]), "model must be valid Unicode text or a number; line 2, the first is a list"),
        (
            changed(2, group={"name": "maths"}),
            "group must be valid Unicode text or a number; line 3, the first is an object",
        ),
        (changed(1, prompt_id="\ud800"), "prompt_id must be valid Unicode text or a number; line 2"),
        (without("score"), "score missing, found"),
        (without("prompt"), "prompt missing"),
        ([], "must have the columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, rows: list[Mapping[str, Any]], message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        read_outcomes(path)
    assert message in str(caught.value)
    assert "bad.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    "rows",
    [
        [row | {"prompt_id": "i" * 10_000} for row in changed(1, prompt="other")],
        [row | {"x" * 10_000: 1} for row in without("score")],
    ],
)
def test_long_ids_and_names_of_columns_are_not_repeated_whole(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError) as caught:
        read_outcomes(write(tmp_path / "x.jsonl", rows))
    assert len(str(caught.value)) < 1_000


def test_a_file_with_names_of_columns_only_is_said_to_have_no_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,model,score\n")
    with pytest.raises(DataError, match="found no row"):
        read_outcomes(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("x.jsonl", b'{"prompt": "a"\n', "line 1 must be JSON"),
        ("x.jsonl", b"[1]\n", "line 1 must be a JSON object, got a list"),
        ("x.jsonl", b'{"prompt": "\xff"}\n', "line 1 must be JSON: it must be text in UTF-8"),
        ("x.parquet", b"PAR1 but not really", "must be a parquet file"),
        ("x.csv", b'a,b\n"unclosed', "x.csv"),
        ("x.xlsx", b"", "must end in .json, .jsonl, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, contents: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(DataError) as caught:
        read_outcomes(tmp_path / name)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_outcomes(tmp_path / "none.parquet")


def test_tasks_are_read_and_the_same_prompt_in_two_tasks_stays_apart(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "model": model, "score": score, "task": task}
        for task, score in (("mail", 1), ("code", 0), (None, 0.5))
        for model in ("a", "b")
    ]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    found = read_outcomes(path)
    assert found.tasks == ("mail", "code", "")
    assert found.scores.tolist() == [[1, 1], [0, 0], [0.5, 0.5]]
    assert len(set(found.ids)) == 3
    assert found.take(np.array([1])).tasks == ("code",)


@pytest.mark.parametrize("key", ["x" * 300, "two\nlines"])
def test_a_task_that_cannot_be_one_names_the_line(tmp_path: Path, key: str) -> None:
    rows = [{"prompt": "p", "model": "a", "score": 1}, {"prompt": "q", "model": "a", "score": 1, "task": key}]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(DataError, match=r"task must .*line 2"):
        read_outcomes(path)


def test_one_id_in_two_tasks_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt_id": "1", "prompt": "p", "model": m, "score": 1, "task": t} for m, t in (("a", "x"), ("b", "y"))]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(DataError, match="two different tasks"):
        read_outcomes(path)

"""Tests of rows that cannot be used: they are left out, counted by reason and listed, and cost no other row."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from probes.errors import DataError
from router.cli.main import cli
from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.traffic.logs import CACHED, CUT_ELSEWHERE
from router.tuning.outcomes.datasets import read_outcomes
from tests.router.tuning.outcomes.log_rows import (
    CUT,
    bring,
    generation,
    output,
    request,
    scored,
    spend,
    table,
    user,
    write,
)


def test_an_error_that_quotes_half_a_surrogate_pair_can_be_printed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [table("a", small="true"), '{"prompt": "b", "small": "half \\ud800"}'])
    done = CliRunner().invoke(cli, ["import", "routellm", str(path), "--out", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 1
    assert "got the words half \\ud800 (1)" in done.output


def test_a_list_of_what_was_left_out_does_not_outlive_its_import(tmp_path: Path) -> None:
    bring("routellm", tmp_path, [table("good"), table("odd", prompt=None)])
    bring("routellm", tmp_path, [table("good")], force=True)
    assert not (tmp_path / "out.left-out.jsonl").exists()


def test_where_nothing_can_be_used_the_first_row_of_each_reason_is_named(tmp_path: Path) -> None:
    rows = [spend("a", spend=-1), spend("b", messages=user("[redacted]")), spend("c", messages=user("<masked>"))]
    with pytest.raises(DataError) as caught:
        import_outcomes(
            "litellm-spend-logs", [write(tmp_path / "log.jsonl", rows)], tmp_path / "out.jsonl", ImportOptions()
        )
    assert f"1 spend that is no number of 0 or more, first {tmp_path / 'log.jsonl'}, line 1" in str(caught.value)
    assert f"2 prompt redacted by the log, first {tmp_path / 'log.jsonl'}, line 2" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize(
    "mask",
    ["redacted", "REDACTED_BY_LITELM", "[REDACTED]", "<masked>", "**redacted**", "(removed by policy)", "<PII_MASKED>",
     "[content removed]", "REDACTED-PII-17", "\u2588\u2588\u2588\u2588", "xxxx", "0123456789abcdef" * 4,
     "sha256:" + "ab" * 32, "redacted-by-litellm\n\nredacted-by-litellm"],
)  # fmt: skip
def test_a_text_that_stands_in_place_of_a_prompt_is_none(tmp_path: Path, mask: str) -> None:
    summary, found = bring("litellm-spend-logs", tmp_path, [spend("good"), spend("odd", messages=user(mask))])
    assert (len(found), summary.left_out) == (1, {"prompt redacted by the log": 1})


@pytest.mark.parametrize(
    "prompt",
    ["What does [REDACTED] mean?", "<b>Filter</b> these <i>rows</i>", "Mask my card number 4111", "Was this removed?",
     "[1, 2, 3]", "***bold***", "Explain sha256:" + "ab" * 32, "My mail is [EMAIL], please reply", "xx", "removed it?",
     '{"filter": "x"}', '["masked"]', pytest.param("redacted" * 100_000 + "!", id="long")],
)  # fmt: skip
def test_a_prompt_about_masks_is_a_prompt(tmp_path: Path, prompt: str) -> None:
    _, found = bring("litellm-spend-logs", tmp_path, [spend("odd", messages=user(prompt))])
    assert found.texts == (prompt,)


def test_eighty_redacted_prompts_do_not_become_one_prompt_asked_eighty_times(tmp_path: Path) -> None:
    rows = [spend(str(i), messages=user("redacted-by-litellm")) for i in range(80)]
    summary, found = bring("litellm-spend-logs", tmp_path, [spend("good"), *rows])
    assert (len(found), summary.left_out) == (1, {"prompt redacted by the log": 80})


def test_one_prompt_in_a_large_share_of_answers_is_kept_and_said(tmp_path: Path) -> None:
    rows = [spend(str(i), messages=user("ping")) for i in range(30)] + [spend(f"x{i}") for i in range(30)]
    summary, found = bring("litellm-spend-logs", tmp_path, rows)
    assert len(found) == 60
    assert any("30 of the 60 answers of fast are to one and the same prompt" in note for note in summary.notes)


def test_answers_from_a_cache_have_no_cost_of_their_own(tmp_path: Path) -> None:
    rows = [
        spend("a"),
        spend("b", cache_hit="True", spend=0.0),
        spend("c", spend=0.0, prompt_tokens=0, completion_tokens=0),
    ]
    summary, found = bring("litellm-spend-logs", tmp_path, rows)
    costs = {text: float(cost) for text, cost in zip(found.texts, found.cost_usd[:, 0], strict=True)}
    assert costs["Question a"] == 0.002
    assert costs["Question b"] != costs["Question b"]  # unknown
    assert costs["Question c"] != costs["Question c"]
    assert f"{CACHED}: 1" in summary.notes


def test_a_cost_of_zero_is_a_price_that_the_log_does_not_know(tmp_path: Path) -> None:
    summary, found = bring("litellm-spend-logs", tmp_path, [spend("a", spend=0), spend("b"), spend("c", spend="0.0")])
    assert [cost == 0.002 for cost in found.cost_usd[:, 0].tolist()] == [False, True, False]
    assert not (found.cost_usd == 0).any()
    assert any(note.startswith("costs of 0") and note.endswith(": 2") for note in summary.notes)


def test_the_masks_and_marks_are_those_of_the_installed_litellm(tmp_path: Path) -> None:
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None:
        pytest.skip("LiteLLM is not installed")
    constants = (Path(found.origin).parent / "constants.py").read_text("utf-8")  # importing it takes seconds
    named = dict(re.findall(r'^(\w+)(?:: Final)? = "([^"]*)"$', constants, re.MULTILINE))
    masks = [named["REDACTED_BY_LITELLM"], named["REDACTED_BY_LITELM_STRING"]]
    cut = f"begin... ({named['LITELLM_TRUNCATED_PAYLOAD_FIELD']} skipped 7 chars. A note.) ...end"
    rows = [spend(f"x{i}", messages=user(text)) for i, text in enumerate([*masks, cut])]
    summary, _ = bring("litellm-spend-logs", tmp_path, [spend("good"), *rows])
    assert summary.left_out == {"prompt redacted by the log": 2, "prompt cut short by the log": 1}


def test_a_cut_system_prompt_does_not_cost_the_answer(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": CUT}, *user("What is a tort?")]
    summary, found = bring("litellm-spend-logs", tmp_path, [spend("a", messages=chat)])
    assert found.texts == ("What is a tort?",)
    assert f"{CUT_ELSEWHERE}: 1" in summary.notes


@pytest.mark.parametrize("asked", ["plain", [{"role": "user", "content": "plain"}]])
def test_the_responses_api_in_spend_logs_and_batches(tmp_path: Path, asked: Any) -> None:
    row = spend("a", call_type="aresponses", messages={}, proxy_server_request=json.dumps({"input": asked}))
    assert bring("litellm-spend-logs", tmp_path, [row])[1].texts == ("plain",)
    one = request("odd", input=asked)
    del one["body"]["messages"]
    assert bring("openai-batch", tmp_path, [output("odd"), one], force=True)[1].texts == ("plain",)


def test_parquet_of_a_database_with_bytes_and_maps_reads_as_json_does(tmp_path: Path) -> None:
    text, usage = pa.binary(), pa.map_(pa.string(), pa.int64())
    columns = {
        "id": pa.array([b"a"], text), "trace_id": pa.array([b"t"], text), "type": pa.array([b"GENERATION"], text),
        "input": pa.array([json.dumps(user("Question a")).encode()], text),
        "provided_model_name": pa.array([b"m"], text),
        "start_time": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", "UTC")),
        "usage_details": pa.array([[("input", 3), ("output", 4)]], usage),
    }  # fmt: skip
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "observations.parquet")
    scores = write(tmp_path / "scores.jsonl", [scored("a")])
    import_outcomes("langfuse", [tmp_path / "observations.parquet", scores], tmp_path / "out.parquet", ImportOptions())
    found = read_outcomes(tmp_path / "out.parquet")
    assert (found.texts, found.models, found.input_tokens.tolist()) == (("Question a",), ("m",), [[3.0]])


def test_legacy_traces_name_the_group_and_are_no_generations(tmp_path: Path) -> None:
    trace = {"id": "t-good", "timestamp": "2026-01-01", "name": "support", "input": "Question of the trace"}
    _, found = bring("langfuse", tmp_path, [trace, generation("good")])
    assert (found.texts, found.groups) == (("Question good",), ("support",))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_times_come_along_and_a_time_that_cannot_be_read_costs_nothing(tmp_path: Path, suffix: str) -> None:
    rows = [spend("a", startTime="2026-01-02T00:00:00.000Z"), spend("b", startTime="soon"), spend("c")]
    import_outcomes(
        "litellm-spend-logs", [write(tmp_path / "in.jsonl", rows)], tmp_path / f"out{suffix}", ImportOptions()
    )
    times = read_outcomes(tmp_path / f"out{suffix}").times.tolist()
    assert times[0] == 1_767_312_000.0
    assert times[1] != times[1]
    assert times[2] != times[2]
    _, found = bring("langfuse", tmp_path, [generation("good", start_time="2026-01-02 00:00:00.000000")], force=True)
    assert found.times.tolist() == [1_767_312_000.0]
    created = output("good", response={"status_code": 200, "body": {"model": "m", "created": 1_767_312_000}})
    assert bring("openai-batch", tmp_path, [created], force=True)[1].times.tolist() == [1_767_312_000.0]


def test_scores_that_belong_to_nothing_are_counted(tmp_path: Path) -> None:
    summary, _ = bring("langfuse", tmp_path, [generation("good"), scored("x", observation_id=None, trace_id=None)])
    notes = " ".join(summary.notes)
    assert "scores that belong to no generation of these files: 1" in notes  # of `odd`
    assert "scores of sessions or experiments, which belong to no single answer: 1" in notes


def test_an_id_with_two_different_scores_is_left_out(tmp_path: Path) -> None:
    logs = write(tmp_path / "log.jsonl", [spend("a", metadata={}), spend("b", metadata={})])
    scores = write(
        tmp_path / "s.jsonl", [{"id": "a", "score": 1}, {"id": "b", "score": 0}, {"id": "b", "score": 1}, {}]
    )
    summary = import_outcomes("litellm-spend-logs", [logs], tmp_path / "out.jsonl", ImportOptions(scores=scores))
    assert summary.left_out == {
        "id with two different scores": 1, "score without an id or a value": 1, "without a score": 1,
    }  # fmt: skip


def test_a_cut_picture_does_not_cost_the_answer(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA... (litellm_truncated 11 chars)"}}
    chat = user([{"type": "text", "text": "What is this?"}, picture])
    assert bring("litellm-spend-logs", tmp_path, [spend("a", messages=chat)])[1].texts == ("What is this?",)


def test_what_an_import_wrote_and_files_named_twice_are_not_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [table("a"), table("b", prompt=None)])
    write(tmp_path / "._in.jsonl", ["not for us"])
    for _ in range(2):
        summary = import_outcomes("routellm", [tmp_path, path], tmp_path / "out.jsonl", ImportOptions(force=True))
        assert (summary.n_files, summary.n_answers, summary.left_out) == (1, 1, {"without a prompt": 1})


def test_outcomes_taken_for_a_wide_table_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "a", "model": "m", "score": 1, "cost_usd": 0.1}])
    with pytest.raises(DataError, match="looks like outcomes already"):
        import_outcomes("routellm", [path], tmp_path / "out.jsonl", ImportOptions())


def test_outcomes_are_never_replaced_silently(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious")
    path = write(tmp_path / "in.jsonl", [table("a")])
    command = ["import", "routellm", str(path), "--out", str(tmp_path / "out.jsonl")]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "out.jsonl exists; give --force to replace it" in refused.output
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    assert CliRunner().invoke(cli, [*command, "--force"]).exit_code == 0
    assert read_outcomes(tmp_path / "out.jsonl").texts == ("Question a",)


def test_packed_files_in_a_folder_are_not_left_out_silently(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    write(tmp_path / "scores" / "a.jsonl", [table("a")])
    (tmp_path / "scores" / "b.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"b\.jsonl\.gz is packed"):
        import_outcomes("routellm", [tmp_path / "scores"], tmp_path / "out.jsonl", ImportOptions())


def test_a_spreadsheet_with_semicolons_a_mark_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = [["id", "prompt", "m"], [7, "a; b\nc", "0,5"], [8, "d", "1"]]
        csv.writer(file, delimiter=";").writerows(rows)
    import_outcomes("routellm", [path], tmp_path / "out.jsonl", ImportOptions())
    found = read_outcomes(tmp_path / "out.jsonl")
    assert (found.texts, found.scores.tolist()) == (("a; b\nc", "d"), [[0.5], [1.0]])

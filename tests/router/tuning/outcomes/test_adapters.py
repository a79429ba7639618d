"""Tests of `elle import`: a small file in the format of each program becomes the outcomes that it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from probes.errors import DataError
from router.cli.main import cli
from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.formats import FORMATS
from router.tuning.outcomes.adapters.summary import ImportSummary
from router.tuning.outcomes.datasets import Outcomes, read_outcomes

CHAT = [{"role": "user", "content": "How far is the moon?"}]


def write_json(path: Path, *records: Any) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(list(records)), "utf-8")
    return path


def bring(kind: str, *paths: Path, suffix: str = ".jsonl", **options: Any) -> tuple[ImportSummary, Outcomes]:
    out = paths[0].parent / "out" / f"data{suffix}"
    summary = import_outcomes(kind, paths, out, ImportOptions(**options))
    return summary, read_outcomes(out)


def cell(outcomes: Outcomes, text: str, model: str) -> tuple[float, float, float, float]:
    at = outcomes.texts.index(text), outcomes.models.index(model)
    return (
        float(outcomes.scores[at]),
        float(outcomes.cost_usd[at]),
        float(outcomes.input_tokens[at]),
        float(outcomes.output_tokens[at]),
    )


class TestRouteLLM:
    def table(self, folder: Path) -> Path:
        path = folder / "mmlu_virology.csv"
        path.write_text(
            ",prompt,org/small,gpt-large,org/small_response\n"
            '0,"What is a virus?\nA. x",True,False,"a, long answer"\n'
            "1,What is RNA?,False,True,b\n",
            "utf-8",
        )
        return path

    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    def test_each_model_column_becomes_rows_with_the_subject_as_group(self, tmp_path: Path, suffix: str) -> None:
        summary, found = bring("routellm", self.table(tmp_path), suffix=suffix)
        assert found.models == ("gpt-large", "org/small")
        assert found.texts == ("What is a virus?\nA. x", "What is RNA?")
        assert found.groups == ("virology", "virology")
        np.testing.assert_array_equal(found.scores, [[0, 1], [1, 0]])
        assert (summary.n_answers, summary.n_prompts, summary.models) == (4, 2, {"gpt-large": 2, "org/small": 2})

    def test_a_folder_is_all_its_tables(self, tmp_path: Path) -> None:
        folder = tmp_path / "responses"
        folder.mkdir()
        self.table(folder)
        (folder / "mmlu_anatomy.csv").write_text("prompt,org/small,gpt-large\nWhat is bone?,True,True\n", "utf-8")
        summary = import_outcomes("routellm", [folder], tmp_path / "out.jsonl", ImportOptions())
        assert set(read_outcomes(tmp_path / "out.jsonl").groups) == {"virology", "anatomy"}
        assert summary.n_files == 2

    def test_a_cell_that_is_no_verdict_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "mmlu_x.csv"
        path.write_text("prompt,model\nq,True\nr,perhaps\n", "utf-8")
        with pytest.raises(
            DataError, match=r"words perhaps \(1\), first in .*mmlu_x\.csv, line 3\. .* --score-map 'perhaps=\?'"
        ):
            bring("routellm", path)


def test_routerbench_brings_costs_groups_and_ids(tmp_path: Path) -> None:
    rows = [
        {
            "sample_id": f"mmlu-{i}",
            "prompt": prompt,
            "eval_name": "mmlu-law",
            "small": score,
            "large": 1.0,
            "small|model_response": "text",
            "small|total_cost": 0.001,
            "large|total_cost": 0.02,
            "oracle_model_to_route_to": "small",
        }
        for i, (prompt, score) in enumerate([("['Be short.', 'What is a tort?']", 0.25), ("[not a list", 1.0)])
    ]
    _, found = bring("routerbench", write_json(tmp_path / "rb.jsonl", *rows))
    assert found.models == ("large", "small")
    assert found.ids == ("mmlu-0", "mmlu-1")
    assert found.texts == ("Be short.\n\nWhat is a tort?", "[not a list")
    assert cell(found, "[not a list", "large")[:2] == (1.0, 0.02)
    assert cell(found, found.texts[0], "small")[:2] == (0.25, 0.001)


class TestMmluPro:
    def record(self, **values: Any) -> dict[str, Any]:
        base = {"question_id": 7, "question": "Which?", "options": ["x", "y", "N/A"], "answer": "B", "category": "law"}
        return base | values

    def test_the_prediction_is_scored_and_options_are_part_of_the_prompt(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "model_outputs_Tiny-7B_5shots.json", self.record(pred="B"))
        _, found = bring("mmlu-pro", path)
        assert found.models == ("Tiny-7B",)
        assert found.texts == ("Which?\nA. x\nB. y",)
        assert (found.ids, found.groups) == (("7",), ("law",))
        assert found.scores[0, 0] == 1.0

    @pytest.mark.parametrize(
        ("answer", "score"),
        [
            ({"pred": None}, 0.0),
            ({"pred": "A"}, 0.0),
            ({"model_outputs": "First, the answer is (A)? No: the answer is (B)."}, 1.0),
            ({"generated_text": "The answer is **B**."}, 1.0),
            ({"response": "I cannot tell."}, 0.0),
        ],
    )
    def test_what_cannot_be_told_is_wrong(self, tmp_path: Path, answer: dict[str, Any], score: float) -> None:
        _, found = bring("mmlu-pro", write_json(tmp_path / "m.json", self.record(**answer)))
        assert found.scores[0, 0] == score

    def test_models_in_folders_share_prompts_and_summaries_are_no_results(self, tmp_path: Path) -> None:
        for model, pred in (("alpha", "A"), ("beta", "B")):
            (tmp_path / "in" / model).mkdir(parents=True)
            write_json(tmp_path / "in" / model / "law_result.json", self.record(pred=pred))
            write_json(tmp_path / "in" / model / "law_summary.json", {"acc": 1})
        summary = import_outcomes("mmlu-pro", [tmp_path / "in"], tmp_path / "out.parquet", ImportOptions())
        found = read_outcomes(tmp_path / "out.parquet")
        assert found.models == ("alpha", "beta")
        assert found.scores.tolist() == [[0.0, 1.0]]
        assert summary.left_out == {"summary files": 2}


class TestOpenAIBatch:
    def request(self, key: str, model: str) -> dict[str, Any]:
        return {
            "custom_id": key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": CHAT},
        }

    def output(self, key: str, model: str, status: int = 200) -> dict[str, Any]:
        body = {"model": model, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 30}}
        return {"id": "b", "custom_id": key, "response": {"status_code": status, "body": body}, "error": None}

    def test_requests_outputs_and_scores_are_joined_by_custom_id(self, tmp_path: Path) -> None:
        requests = write_json(
            tmp_path / "requests.jsonl",
            self.request("q", "gpt-x"),
            self.request("q", "gpt-x-mini"),
            self.request("r", "gpt-x"),
        )
        outputs = write_json(
            tmp_path / "outputs.jsonl",
            self.output("q", "gpt-x-2024-08-06"),
            self.output("q", "gpt-x-mini-2024-07-18"),
            self.output("r", "gpt-x-2024-08-06", status=429),
            self.output("q", "gpt-x-2024-08-06", status=500),
        )
        scores = write_json(
            tmp_path / "scores.jsonl", {"custom_id": "gpt-x/q", "score": 1}, {"custom_id": "gpt-x-mini/q", "score": 0.5}
        )
        summary, found = bring("openai-batch", requests, outputs, scores=scores)
        assert summary.left_out == {"failed calls": 2}
        assert found.ids == ("q",)
        assert cell(found, CHAT[0]["content"], "gpt-x")[0] == 1.0
        assert cell(found, CHAT[0]["content"], "gpt-x-mini")[0] == 0.5
        assert cell(found, CHAT[0]["content"], "gpt-x")[2:] == (9, 30)

    def test_without_scores_nothing_is_written(self, tmp_path: Path) -> None:
        paths = (
            write_json(tmp_path / "a.jsonl", self.request("q", "m")),
            write_json(tmp_path / "b.jsonl", self.output("q", "m")),
        )
        with pytest.raises(
            DataError,
            match=r"no answer with a prompt and a score in the 2 files \(1 without a score, first .*b\.jsonl, line 1\)",
        ):
            bring("openai-batch", *paths)
        assert not (tmp_path / "out").exists()

    def test_an_output_of_no_request_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="name the request files"):
            bring("openai-batch", write_json(tmp_path / "b.jsonl", self.output("q", "m")))


def test_litellm_spend_logs_take_scores_from_a_file_or_from_metadata(tmp_path: Path) -> None:
    def row(key: str, **values: Any) -> dict[str, Any]:
        base = {
            "request_id": key, "model_group": "fast", "model": "openai/m-1", "messages": json.dumps(CHAT),
            "spend": 0.002, "prompt_tokens": 5, "completion_tokens": 6, "status": "success",
            "request_tags": '["chat"]', "metadata": "{}",
        }  # fmt: skip
        return base | values

    logs = write_json(
        tmp_path / "logs.json",
        row("a"),
        row("b", model_group="", metadata={"score": 0.25}),
        row("c", model_group="smart", metadata=json.dumps({"requester_metadata": {"score": 0.75}})),
        row("d", status="failure"),
        row("e", messages="{}"),
        row("f"),
    )
    scores = write_json(tmp_path / "scores.json", {"request_id": "a", "score": 1.0})
    summary, found = bring("litellm-spend-logs", logs, scores=scores)
    assert found.models == ("fast", "openai/m-1", "smart")
    assert found.scores.tolist() == [[1.0, 0.25, 0.75]]
    assert found.groups == ("chat",)
    assert cell(found, CHAT[0]["content"], "fast") == (1.0, 0.002, 5, 6)
    assert summary.left_out == {"failed calls": 1, "without a prompt": 1, "without a score": 1}


class TestLangfuse:
    def observation(self, key: str, trace: str, **values: Any) -> dict[str, Any]:
        base = {
            "id": key, "trace_id": trace, "type": "GENERATION", "input": json.dumps({"messages": CHAT}),
            "provided_model_name": "m", "total_cost": 0.01, "usage_details": {"input": 3, "output": 4},
            "trace_name": "help",
        }  # fmt: skip
        return base | values

    def score(self, value: Any, **values: Any) -> dict[str, Any]:
        return {"id": "s", "name": "correct", "value": value, "data_type": "NUMERIC", **values}

    def test_scores_of_observations_and_of_traces_with_one_generation(self, tmp_path: Path) -> None:
        observations = write_json(
            tmp_path / "observations.jsonl",
            self.observation("a", "t1"),
            self.observation("b", "t2", provided_model_name="n"),
            self.observation("c", "t3"),
            self.observation("d", "t3"),
            self.observation("e", "t1", type="SPAN"),
        )
        scores = write_json(
            tmp_path / "scores.jsonl",
            self.score(1, trace_id="t1", observation_id="a"),
            self.score(0, trace_id="t1", observation_id="a"),
            self.score(1, trace_id="t2"),
            self.score(1, trace_id="t3"),
        )
        summary, found = bring("langfuse", observations, scores)
        assert found.scores.tolist() == [[0.5, 1.0]]
        assert found.groups == ("help",)
        assert cell(found, CHAT[0]["content"], "m") == (0.5, 0.01, 3, 4)
        assert summary.left_out == {"not generations": 1, "scored only on a trace of several generations": 2}

    def test_a_trace_as_downloaded_holds_both(self, tmp_path: Path) -> None:
        generation = {"id": "a", "type": "GENERATION", "input": "plain text", "model": "m", "traceId": "t"}
        trace = {"id": "t", "name": "ask", "observations": [generation], "scores": [{"name": "ok", "value": True}]}
        _, found = bring("langfuse", write_json(tmp_path / "trace.json", trace))
        assert (found.texts, found.groups, found.scores.tolist()) == (("plain text",), ("ask",), [[1.0]])

    def test_of_several_scores_one_must_be_chosen(self, tmp_path: Path) -> None:
        path = write_json(
            tmp_path / "x.jsonl",
            self.observation("a", "t"),
            self.score(5, observation_id="a", name="stars"),
            self.score(0, observation_id="a"),
        )
        with pytest.raises(DataError, match=r"several scores: correct \(1\), stars \(1\)\. Choose one"):
            bring("langfuse", path)
        with pytest.raises(DataError, match=r"must be one of correct \(1\), stars \(1\); got 'x'"):
            bring("langfuse", path, score_name="x")
        _, found = bring("langfuse", path, score_name="stars", score_range=(1.0, 5.0))
        assert found.scores.tolist() == [[1.0]]


class TestRefusals:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_records_of_another_kind_are_an_error_that_names_the_file(self, tmp_path: Path, kind: str) -> None:
        path = write_json(tmp_path / "other.json", {"unknown": 1})
        with pytest.raises(DataError, match=r"other\.json"):
            bring(kind, path)

    def test_scores_out_of_range_name_the_row_and_leave_no_file(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("prompt,m\nq,1\nr,7\n", "utf-8")
        with pytest.raises(DataError, match=r"scores must run from 0 .* 7 in .*t\.csv, line 3"):
            import_outcomes("routellm", [path], tmp_path / "out.jsonl", ImportOptions())
        assert sorted(file.name for file in tmp_path.iterdir()) == ["t.csv"]

    def test_a_pickle_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        path = tmp_path / "routerbench_0shot.pkl"
        path.write_bytes(b"\x80\x04")
        with pytest.raises(DataError, match="A pickle runs code when opened"):
            bring("routerbench", path)

    def test_broken_lines_and_missing_files_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_text('{"a": 1}\n{broken\n', "utf-8")
        with pytest.raises(DataError, match=r"unreadable row, first .*x\.jsonl, line 2: must be JSON"):
            bring("langfuse", path)
        with pytest.raises(DataError, match="does not exist"):
            import_outcomes("langfuse", [tmp_path / "nothing"], tmp_path / "out.jsonl", ImportOptions())

    def test_options_of_other_kinds_are_refused(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "x.json", {"id": "a", "score": 1})
        with pytest.raises(DataError, match="--scores is for"):
            bring("routellm", path, scores=path)
        with pytest.raises(DataError, match="--score-name is for lm-eval, promptfoo"):
            bring("routellm", path, score_name="x")
        with pytest.raises(DataError, match="the format must be one of routellm"):
            bring("parquet", path)


def test_the_command_prints_what_it_brought(tmp_path: Path) -> None:
    table = TestRouteLLM().table(tmp_path)
    out = tmp_path / "data.parquet"
    done = CliRunner().invoke(
        cli, ["import", "routellm", str(table), "--out", str(out), "--json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert (found["n_answers"], found["n_prompts"], found["left_out"]) == (4, 2, {})
    failed = CliRunner().invoke(cli, ["import", "nosuch", str(table), "--out", str(out)])
    assert failed.exit_code == 1
    assert "the format must be one of" in failed.output


class TestTable:
    def test_a_table_of_prompts_models_and_scores_becomes_outcomes(self, tmp_path: Path) -> None:
        path = tmp_path / "table.csv"
        path.write_text(
            "question,model_name,score,category,cost_usd\nHow far?,m,4,moon,0.5\nHow far?,n,5,moon,\n", "utf-8"
        )
        summary, found = bring("table", path, score_range=(1, 5))
        assert cell(found, "How far?", "m")[:2] == (0.75, 0.5)
        assert (found.groups, summary.models) == (("moon",), {"m": 1, "n": 1})

    def test_a_row_without_a_model_or_a_score_is_left_out(self, tmp_path: Path) -> None:
        rows = [{"prompt": "a", "model": "m", "score": 1}, {"prompt": "b", "score": 1}, {"prompt": "c", "model": "m"}]
        summary, _ = bring("table", write_json(tmp_path / "table.jsonl", *rows))
        assert summary.left_out == {"without model": 1, "without a score": 1}

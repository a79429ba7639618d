"""Results of evaluation programs become outcomes; of several scores one must be chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from tests.router.tuning.outcomes.bringing import CHAT, imported, write_rows


class TestLmEval:
    def sample(self, number: int, **more: Any) -> dict[str, Any]:
        return {
            "doc_id": number,
            "doc": {"question": f"question {number}", "answer": 4},
            "target": "4",
            "arguments": {"gen_args_0": {"arg_0": f"Q: question {number}\nA:", "arg_1": {"until": ["\n"]}}},
            "resps": [["4"]],
            "filtered_resps": ["4"],
            "filter": "none",
            "doc_hash": "12" * 32,
            "exact_match": 1.0,
        } | more

    def path(self, folder: Path, model: str = "org__small", task: str = "gsm8k") -> Path:
        return folder / model / f"samples_{task}_2025-01-31T12-00-00.123456.jsonl"

    def test_each_folder_is_a_model_and_each_file_a_task(self, tmp_path: Path) -> None:
        write_rows(self.path(tmp_path), self.sample(0), self.sample(1, exact_match=0.0))
        write_rows(self.path(tmp_path, "org__large"), self.sample(0), self.sample(1))
        (tmp_path / "org__large" / "results_2025-01-31T12-00-00.123456.json").write_text('{"results": {}}', "utf-8")
        summary, found = imported(None, tmp_path)
        assert (summary.format, summary.models) == ("lm-eval", {"org/large": 2, "org/small": 2})
        assert found.texts == ("Q: question 0\nA:", "Q: question 1\nA:")
        assert found.scores.tolist() == [[1, 1], [1, 0]]
        assert set(found.groups) == {"gsm8k"}
        assert summary.left_out == {"files of results": 1}
        assert summary.score.sources == {"metric 'exact_match'": 4}

    def test_older_files_list_their_arguments_and_choices_share_a_context(self, tmp_path: Path) -> None:
        rows = [self.sample(0, arguments=[["Which?", " a"], ["Which?", " b"]], acc=1.0, exact_match=None)]
        _, found = imported("lm-eval", write_rows(self.path(tmp_path, task="arc_easy"), *rows))
        assert (found.texts, found.groups) == (("Which?",), ("arc_easy",))

    def test_a_chat_that_was_sent_as_json_is_a_chat(self, tmp_path: Path) -> None:
        rows = [self.sample(0, arguments={"gen_args_0": {"arg_0": json.dumps(CHAT)}})]
        _, found = imported("lm-eval", write_rows(self.path(tmp_path), *rows))
        assert found.texts == ("How far is the moon?",)

    def test_of_several_metrics_one_must_be_chosen(self, tmp_path: Path) -> None:
        path = write_rows(self.path(tmp_path), self.sample(0, exact_match=None, acc=0.0, acc_norm=1.0))
        with pytest.raises(DataError, match=r"several scores: acc \(1\), acc_norm \(1\)\. Choose one"):
            imported("lm-eval", path)
        _, found = imported("lm-eval", path, score_name="acc_norm")
        assert found.scores.tolist() == [[1.0]]
        with pytest.raises(DataError, match=r"got 'acc_nrm'\. Did you mean 'acc_norm'\?"):
            imported("lm-eval", path, score_name="acc_nrm", force=True)

    def test_the_rows_of_two_filters_are_about_one_answer(self, tmp_path: Path) -> None:
        rows = [self.sample(0, filter=name, exact_match=score) for name, score in (("strict", 0.0), ("flexible", 1.0))]
        path = write_rows(self.path(tmp_path), *rows)
        summary, found = imported("lm-eval", path, score_name="exact_match,flexible")
        assert (summary.n_answers, found.scores.tolist()) == (1, [[1.0]])

    def test_a_perplexity_is_no_quality(self, tmp_path: Path) -> None:
        path = write_rows(self.path(tmp_path), self.sample(0, exact_match=None, word_perplexity=0.5))
        with pytest.raises(DataError, match=r"'word_perplexity' .* sounds as if more of it were worse"):
            imported("lm-eval", path)


class TestPromptfoo:
    def result(self, **more: Any) -> dict[str, Any]:
        return {
            "provider": {"id": "openai:gpt-4o-mini", "label": ""},
            "prompt": {"raw": "How far is the moon?", "label": "p"},
            "vars": {"x": 1},
            "response": {"output": "far", "tokenUsage": {"total": 9, "prompt": 5, "completion": 4}},
            "success": True,
            "score": 0.75,
            "namedScores": {"tone": 0.5},
            "cost": 0.001,
            "gradingResult": {"pass": True, "score": 0.75, "reason": "All assertions passed"},
            "testCase": {"description": "distances"},
        } | more

    def write(self, folder: Path, *results: Any, version: int = 3) -> Path:
        whole = {"evalId": "eval-1", "results": {"version": version, "results": results, "stats": {}}, "config": {}}
        path = folder / "results.json"
        path.write_text(json.dumps(whole), "utf-8")
        return path

    @pytest.mark.parametrize("version", [2, 3])
    def test_results_of_both_versions_are_read(self, tmp_path: Path, version: int) -> None:
        large = self.result(provider={"id": "x", "label": "large"}, score=1)
        summary, found = imported(None, self.write(tmp_path, self.result(), large, version=version))
        assert (summary.format, found.models) == ("promptfoo", ("large", "openai:gpt-4o-mini"))
        assert found.scores.tolist() == [[1.0, 0.75]]
        assert (found.groups, found.input_tokens.tolist(), found.cost_usd[0, 0]) == (("distances",), [[5, 5]], 0.001)

    def test_version_4_wraps_the_same_results_and_json_lines_hold_one_each(self, tmp_path: Path) -> None:
        path = tmp_path / "four.json"
        path.write_text(json.dumps({"version": 4, "results": {"version": 3, "results": [self.result()]}}), "utf-8")
        assert imported(None, path)[1].scores.tolist() == [[0.75]]
        lines = write_rows(tmp_path / "lines" / "results.jsonl", self.result())
        assert imported(None, lines)[1].scores.tolist() == [[0.75]]

    def test_a_named_score_is_chosen_by_its_name(self, tmp_path: Path) -> None:
        summary, found = imported("promptfoo", self.write(tmp_path, self.result()), score_name="tone")
        assert found.scores.tolist() == [[0.5]]
        assert summary.score.sources == {"named score 'tone'": 1}

    def test_failures_and_tests_without_an_assertion_are_left_out(self, tmp_path: Path) -> None:
        rows = [
            self.result(),
            self.result(failureReason=2, score=0),
            self.result(error="timeout", response={}),
            self.result(gradingResult={"pass": True, "score": 1, "reason": "No assertions"}),
            self.result(gradingResult=None),
            self.result(prompt={}),
        ]
        summary, _ = imported("promptfoo", self.write(tmp_path, *rows))
        assert summary.left_out == {
            "failed calls": 2,
            "tests without an assertion, which promptfoo counts as passed": 2,
            "without a prompt": 1,
        }

    def test_a_prompt_that_is_a_chat_is_read_as_one(self, tmp_path: Path) -> None:
        _, found = imported("promptfoo", self.write(tmp_path, self.result(prompt={"raw": json.dumps(CHAT)})))
        assert found.texts == ("How far is the moon?",)

    def test_a_file_without_results_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="found no answer with a prompt and a score"):
            imported("promptfoo", self.write(tmp_path))


class TestOpenAIEvals:
    def item(self, number: int = 0, **more: Any) -> dict[str, Any]:
        sample = {
            "input": CHAT,
            "output": [{"role": "assistant", "content": "far"}],
            "model": "gpt-4o-mini-2024-07-18",
            "error": {"code": None, "message": None},
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "cached_tokens": 0},
        }
        grader = {"name": "String check-a2486074-d803-4445-b431-ad2262e85d47", "passed": True, "score": 1.0}
        return {
            "object": "eval.run.output_item",
            "id": f"item_{number}",
            "created_at": 1_760_000_000,
            "datasource_item": {"input": "x"},
            "results": [grader],
            "sample": sample,
            "status": "pass",
        } | more

    def test_an_output_item_has_the_score_of_its_grader(self, tmp_path: Path) -> None:
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"object": "list", "data": [self.item()]}), "utf-8")
        summary, found = imported(None, path)
        assert (summary.format, found.models, found.scores.tolist()) == (
            "openai-evals",
            ("gpt-4o-mini-2024-07-18",),
            [[1.0]],
        )
        assert summary.score.sources == {"`score` of grader 'String check'": 1}
        assert (found.input_tokens.tolist(), found.times.tolist()) == ([[7]], [1_760_000_000])

    def test_graders_on_another_scale_are_asked_about_and_passed_is_read_without_a_score(self, tmp_path: Path) -> None:
        seven = self.item(results=[{"name": "judge", "passed": True, "score": 6}])
        path = write_rows(tmp_path / "items.jsonl", seven)
        with pytest.raises(DataError, match=r"scores must run from 0 .* 6 in .*items\.jsonl, line 1"):
            imported("openai-evals", path)
        assert imported("openai-evals", path, score_range=(1, 7))[1].scores.tolist() == [[pytest.approx(5 / 6)]]
        passed = write_rows(tmp_path / "p.jsonl", self.item(results=[{"name": "g", "passed": False}]))
        assert imported("openai-evals", passed, force=True)[1].scores.tolist() == [[0.0]]

    def test_items_with_an_error_or_without_a_chat_are_left_out(self, tmp_path: Path) -> None:
        rows = [
            self.item(),
            self.item(sample=self.item()["sample"] | {"error": {"code": "rate_limit", "message": "m"}}),
            self.item(sample={"model": "m", "output": 7}),
        ]
        summary, _ = imported("openai-evals", write_rows(tmp_path / "items.jsonl", *rows))
        assert summary.left_out == {"failed calls": 1, "without a prompt": 1}

    def test_a_log_of_oaieval_has_its_model_in_the_first_line(self, tmp_path: Path) -> None:
        event = {"run_id": "r", "event_id": 0, "sample_id": "t.dev.0"}
        rows = [
            {"spec": {"completion_fns": ["gpt-3.5-turbo"], "eval_name": "t.dev.v0"}},
            event | {"type": "sampling", "data": {"prompt": CHAT, "sampled": ["far"]}},
            event | {"type": "match", "data": {"correct": True, "expected": "far", "picked": "far"}},
            {"final_report": {"accuracy": 1.0}},
        ]
        summary, found = imported(None, write_rows(tmp_path / "log.jsonl", *rows))
        assert (summary.format, found.models, found.scores.tolist()) == ("openai-evals", ("gpt-3.5-turbo",), [[1.0]])
        assert summary.left_out == {"final reports": 1}

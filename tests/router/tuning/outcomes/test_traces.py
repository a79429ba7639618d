"""Exports of tracing programs become outcomes, with the feedback on a call or on a trace of one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from tests.router.tuning.outcomes.bringing import CHAT, imported, write_rows

MOON = "How far is the moon?"

#: A message as LangChain writes its own objects, and the beginning of the flat names of Phoenix's first message.
CONSTRUCTED = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "schema", "messages", "HumanMessage"],
    "kwargs": {"content": MOON, "type": "human"},
}
FIRST = "llm.input_messages.0.message"


class TestLangSmith:
    def run(self, key: str, **more: Any) -> dict[str, Any]:
        return {
            "id": key,
            "trace_id": f"t-{key}",
            "name": "ChatOpenAI",
            "run_type": "llm",
            "start_time": "2025-01-31T12:00:00",
            "inputs": {"messages": CHAT},
            "outputs": {},
            "extra": {"metadata": {"ls_model_name": "gpt-4o-mini", "thread_id": "th"}},
            "prompt_tokens": 7,
            "completion_tokens": 9,
            "total_cost": "0.001",
            "session_id": "project",
            "feedback_stats": {"correct": {"n": 2, "avg": 0.5}},
        } | more

    def test_a_run_has_the_mean_of_its_feedback(self, tmp_path: Path) -> None:
        chain = {"id": "c", "trace_id": "c", "run_type": "chain", "inputs": {}}
        summary, found = imported(None, write_rows(tmp_path / "runs.jsonl", self.run("a"), chain))
        assert (summary.format, found.models, found.texts, found.scores.tolist()) == (
            "langsmith", ("gpt-4o-mini",), (MOON,), [[0.5]],
        )  # fmt: skip
        assert (found.input_tokens.tolist(), found.cost_usd.tolist()) == ([[7]], [[0.001]])
        assert summary.left_out == {"runs that call no model": 1}

    @pytest.mark.parametrize(
        "inputs",
        [
            {"messages": [[CONSTRUCTED]]},
            {"messages": [{"type": "human", "data": {"content": MOON, "type": "human"}}]},
            {"messages": [{"type": "human", "content": MOON}]},
            {"prompts": [MOON]},
            {"input": MOON},
            json.dumps({"messages": CHAT}),
        ],
    )  # fmt: skip
    def test_inputs_of_every_shape_are_read(self, tmp_path: Path, inputs: Any) -> None:
        assert imported("langsmith", write_rows(tmp_path / "r.jsonl", self.run("a", inputs=inputs)))[1].texts == (MOON,)

    def test_feedback_on_a_trace_counts_for_its_only_call(self, tmp_path: Path) -> None:
        rows = [
            self.run("a", feedback_stats=None),
            self.run("b", feedback_stats=None, trace_id="t", inputs={"input": "What is a star?"}),
            self.run("c", feedback_stats=None, trace_id="t", inputs={"input": "What is a sun?"}),
            {"id": "f1", "run_id": "t-a", "key": "correct", "score": 1},
            {"id": "f2", "run_id": "t", "key": "correct", "score": 0},
            {"id": "f3", "run_id": "nobody", "key": "correct", "score": 0},
        ]
        summary, found = imported(None, write_rows(tmp_path / "runs.jsonl", *rows))
        assert (found.texts, found.scores.tolist()) == ((MOON,), [[1.0]])
        assert summary.left_out == {"scored only on a trace of several calls": 2}
        assert summary.notes[0] == "feedback that belongs to no call of these files: 1"

    def test_feedback_on_the_root_of_a_trace_is_found_in_its_statistics(self, tmp_path: Path) -> None:
        root = {"id": "t", "trace_id": "t", "run_type": "chain", "inputs": {}, "feedback_stats": {"good": {"avg": 1}}}
        rows = [root, self.run("a", trace_id="t", feedback_stats={})]
        assert imported("langsmith", write_rows(tmp_path / "r.jsonl", *rows))[1].scores.tolist() == [[1.0]]

    def test_failures_repeats_and_runs_without_a_prompt_are_left_out(self, tmp_path: Path) -> None:
        rows = [self.run("a"), self.run("a"), self.run("b", error="boom"), self.run("c", inputs={"x": 1})]
        summary, _ = imported("langsmith", write_rows(tmp_path / "runs.jsonl", *rows))
        assert summary.left_out == {"failed calls": 1, "without a prompt": 1, "repeated records": 1}


class TestPhoenix:
    def flat(self, **more: Any) -> dict[str, Any]:
        message = {"message.role": "user", "message.content": MOON}
        return {
            "name": "ChatCompletion",
            "span_kind": "LLM",
            "status_code": "OK",
            "start_time": "2025-01-31T12:00:00+00:00",
            "context.span_id": "s1",
            "context.trace_id": "t1",
            "attributes.llm.model_name": "m",
            "attributes.llm.input_messages": [message],
            "attributes.llm.token_count.prompt": 7,
            "attributes.session.id": "s",
        } | more

    def nested(self, attributes: Any, **more: Any) -> dict[str, Any]:
        context = {"span_id": "s1", "trace_id": "t1"}
        return {"name": "n", "span_kind": "LLM", "context": context, "attributes": attributes} | more

    def annotation(self, key: str = "s1", **result: Any) -> dict[str, Any]:
        return {"span_id": key, "name": "user_feedback", "annotator_kind": "HUMAN", "result": result}

    def test_a_table_of_spans_and_its_annotations_are_joined(self, tmp_path: Path) -> None:
        chain = {"name": "c", "span_kind": "CHAIN"}
        rows = [self.flat(), chain, self.annotation(label="up", score=1.0), self.annotation("nobody", score=0)]
        summary, found = imported(None, write_rows(tmp_path / "spans.jsonl", *rows))
        assert (summary.format, found.models, found.texts, found.scores.tolist()) == (
            "phoenix",
            ("m",),
            (MOON,),
            [[1.0]],
        )
        assert (found.input_tokens.tolist(), summary.left_out) == ([[7]], {"spans that call no model": 1})

    @pytest.mark.parametrize(
        "attributes",
        [
            {"llm.model_name": "m", f"{FIRST}.role": "user", f"{FIRST}.content": MOON},
            {"llm": {"model_name": "m", "input_messages": [{"message": {"role": "user", "content": MOON}}]}},
            {"llm.model_name": "m", "input.value": json.dumps({"messages": CHAT})},
            {"llm.model_name": "m", "input": {"value": MOON}},
        ],
    )  # fmt: skip
    def test_attributes_of_every_shape_are_read(self, tmp_path: Path, attributes: Any) -> None:
        rows = [self.nested(attributes), self.annotation(score=0.5)]
        assert imported(None, write_rows(tmp_path / "spans.jsonl", *rows))[1].texts == (MOON,)

    def test_an_annotation_with_a_label_only_needs_a_map(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "spans.jsonl", self.flat(), self.annotation(label="helpful"))
        with pytest.raises(DataError, match=r"words helpful \(1\)"):
            imported("phoenix", path)
        assert imported("phoenix", path, score_map=["helpful=1"])[1].scores.tolist() == [[1.0]]

    def test_evaluations_in_columns_have_names_of_which_one_is_chosen(self, tmp_path: Path) -> None:
        row = self.flat(**{"eval.Correctness.score": 1, "eval.Correctness.label": "yes", "eval.Tone.score": 0})
        path = write_rows(tmp_path / "spans.jsonl", row)
        with pytest.raises(DataError, match=r"several scores: Correctness \(1\), Tone \(1\)"):
            imported("phoenix", path)
        assert imported("phoenix", path, score_name="Correctness")[1].scores.tolist() == [[1.0]]

    def test_failed_spans_and_spans_without_a_prompt_are_left_out(self, tmp_path: Path) -> None:
        empty = self.nested({"llm.model_name": "m"}, context={"span_id": "s3", "trace_id": "t3"})
        failed = self.flat(status_code="ERROR") | {"context.span_id": "s2"}
        rows = [self.flat(), self.annotation(score=1), failed, empty]
        assert imported("phoenix", write_rows(tmp_path / "s.jsonl", *rows))[0].left_out == {
            "failed calls": 1, "without a prompt": 1,
        }  # fmt: skip


class TestHelicone:
    def request(self, key: str, **more: Any) -> dict[str, Any]:
        return {
            "request_id": key,
            "request_created_at": "2025-01-31T12:00:00Z",
            "request_body": {"model": "gpt-4o", "messages": CHAT, "max_tokens": 5},
            "request_model": "gpt-4o",
            "response_status": 200,
            "response_body": {"choices": [{"message": {"role": "assistant", "content": "far"}}]},
            "prompt_tokens": 5,
            "prompt_cache_read_tokens": 95,
            "completion_tokens": 9,
            "costUSD": 0.002,
            "request_properties": {"Helicone-Session-Id": "s"},
            "scores": {"helpful-hcone-bool": 1},
            "feedback_rating": None,
        } | more

    def test_a_request_has_its_score_tokens_and_cost(self, tmp_path: Path) -> None:
        path = tmp_path / "requests.json"
        path.write_text(json.dumps({"data": [self.request("a")], "error": None}), "utf-8")
        summary, found = imported(None, path)
        assert (summary.format, found.texts, found.scores.tolist()) == ("helicone", (MOON,), [[1.0]])
        assert (found.input_tokens.tolist(), found.cost_usd.tolist()) == ([[100]], [[0.002]])
        assert summary.score.sources == {"score 'helpful'": 1}

    def test_the_thumb_of_the_user_is_a_score_of_its_own(self, tmp_path: Path) -> None:
        rows = [self.request("a", feedback_rating=False), self.request("b", scores={}, feedback={"rating": True})]
        path = write_rows(tmp_path / "r.jsonl", *rows)
        with pytest.raises(DataError, match=r"several scores: feedback \(2\), helpful \(1\)"):
            imported("helicone", path)
        assert imported("helicone", path, score_name="feedback")[1].scores[:, 0].tolist() == [0.0, 1.0]

    def test_scores_are_whole_numbers_there_so_another_scale_is_asked_about(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "r.jsonl", self.request("a", scores={"stars": {"value": 4, "valueType": "int"}}))
        with pytest.raises(DataError, match=r"scores must run from 0 .* 4 in"):
            imported("helicone", path)

    def test_failures_repeats_and_other_bodies_are_left_out(self, tmp_path: Path) -> None:
        rows = [self.request("a"), self.request("a"), self.request("b", response_status=429)]
        rows.append(self.request("c", request_body="not stored"))
        assert imported("helicone", write_rows(tmp_path / "r.jsonl", *rows))[0].left_out == {
            "repeated records": 1, "failed calls": 1, "without a prompt": 1,
        }  # fmt: skip


class TestBraintrust:
    def event(self, key: str, root: str, **more: Any) -> dict[str, Any]:
        return {"id": f"e-{key}", "span_id": key, "root_span_id": root, "created": "2025-01-31T12:00:00Z"} | more

    def call(self, key: str, root: str, text: str = MOON, **more: Any) -> dict[str, Any]:
        return self.event(
            key, root, input=[{"role": "user", "content": text}], span_attributes={"type": "llm"},
            metadata={"model": "m"}, metrics={"prompt_tokens": 7, "completion_tokens": 9},
        ) | more  # fmt: skip

    def test_the_scores_of_a_trace_count_for_its_only_call(self, tmp_path: Path) -> None:
        root = self.event("r", "r", input="moon", scores={"Factuality": 0.6}, span_attributes={"type": "eval"})
        rows = [root, self.call("c", "r"), self.event("s", "r", span_attributes={"type": "score"})]
        summary, found = imported(None, write_rows(tmp_path / "events.jsonl", *rows))
        assert (summary.format, found.models, found.texts, found.scores.tolist()) == (
            "braintrust", ("m",), (MOON,), [[0.6]],
        )  # fmt: skip
        assert summary.left_out == {"spans that call no model": 1}

    def test_a_flat_event_that_names_its_model_is_a_call(self, tmp_path: Path) -> None:
        row = self.event("r", "r", input={"question": MOON}, metadata={"model": "m"}, scores={"ok": 1}, tags=["x"])
        _, found = imported(None, write_rows(tmp_path / "events.jsonl", row))
        assert (found.texts, found.groups, found.scores.tolist()) == ((MOON,), ("x",), [[1.0]])

    def test_of_a_root_that_names_its_model_and_its_inner_call_only_the_call_counts(self, tmp_path: Path) -> None:
        root = self.event("r", "r", input="moon", metadata={"model": "wrapper"}, scores={"ok": 0})
        _, found = imported(None, write_rows(tmp_path / "events.jsonl", root, self.call("c", "r")))
        assert (found.models, found.scores.tolist()) == (("m",), [[0.0]])

    def test_a_trace_of_two_calls_is_left_out_and_so_are_failures(self, tmp_path: Path) -> None:
        rows = [
            self.event("r", "r", scores={"ok": 1}), self.call("a", "r"), self.call("b", "r", "What is a sun?"),
            self.call("c", "c", "Why?", scores={"ok": 1}), self.call("d", "d", error="boom"),
            self.call("e", "e", input=7),
        ]  # fmt: skip
        summary, found = imported("braintrust", write_rows(tmp_path / "events.jsonl", *rows))
        assert (found.texts, summary.left_out) == (
            ("Why?",),
            {"failed calls": 1, "without a prompt": 1, "scored only on a trace of several calls": 2},
        )

"""Batches are joined by their ids, stored completions with their messages, and a vote scores two models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from tests.router.tuning.outcomes.bringing import CHAT, imported, write_rows


class TestAzureBatch:
    def test_its_files_are_read_like_those_of_openai(self, tmp_path: Path) -> None:
        request = {
            "custom_id": "a",
            "method": "POST",
            "url": "/chat/completions",
            "body": {"model": "gpt-4o-batch", "messages": CHAT},
        }
        body = {
            "model": "gpt-4o-2024-08-06",
            "usage": {"prompt_tokens": 7, "completion_tokens": 9},
            "created": 1_760_000_000,
        }
        output = {"custom_id": "a", "response": {"body": body, "request_id": "r", "status_code": 200}, "error": None}
        failed = {"custom_id": "b", "error": {"code": "content_filter"}, "response": None}
        files = [
            write_rows(tmp_path / "in.jsonl", request, request | {"custom_id": "b"}),
            write_rows(tmp_path / "out.jsonl", output),
            write_rows(tmp_path / "error.jsonl", failed),
        ]
        scores = write_rows(tmp_path / "scores" / "scores.jsonl", {"custom_id": "a", "score": 0.5})
        summary, found = imported(None, *files, scores=scores)
        assert (summary.format, found.models, found.scores.tolist()) == ("openai-batch", ("gpt-4o-batch",), [[0.5]])
        assert summary.left_out == {"failed calls": 1}


class TestAnthropicBatch:
    def request(self, key: str, **more: Any) -> dict[str, Any]:
        return {
            "custom_id": key,
            "params": {"model": "claude-x", "max_tokens": 9, "system": "Be brief.", "messages": CHAT} | more,
        }

    def result(self, key: str, kind: str = "succeeded") -> dict[str, Any]:
        usage = {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5, "output_tokens": 3}
        message = {"model": "claude-x-2025", "content": [{"type": "text", "text": "far"}], "usage": usage}
        return {"custom_id": key, "result": {"type": kind} | ({"message": message} if kind == "succeeded" else {})}

    def scores(self, folder: Path, *keys: str) -> Path:
        return write_rows(folder / "scores" / "scores.jsonl", *({"custom_id": key, "score": 1} for key in keys))

    def test_requests_and_results_are_joined_in_any_order(self, tmp_path: Path) -> None:
        requests = write_rows(tmp_path / "requests.jsonl", self.request("a"), self.request("b"))
        results = write_rows(tmp_path / "results.jsonl", self.result("b"), self.result("a", "expired"))
        summary, found = imported(None, results, requests, scores=self.scores(tmp_path, "b", "c"))
        assert (summary.format, found.models, found.ids) == ("anthropic-batch", ("claude-x",), ("b",))
        assert (found.input_tokens.tolist(), found.output_tokens.tolist()) == ([[100]], [[3]])
        assert summary.left_out == {"failed calls": 1}
        assert summary.notes[0] == "scores that belong to no answer of these files: 1"

    def test_the_body_that_creates_a_batch_holds_the_requests(self, tmp_path: Path) -> None:
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"requests": [self.request("a"), self.request("b")]}), "utf-8")
        results = write_rows(tmp_path / "results.jsonl", self.result("a"), self.result("a"), self.result("z"))
        summary, found = imported(None, body, results, scores=self.scores(tmp_path, "a"))
        assert (len(found), summary.left_out) == (1, {"repeated records": 1, "result of no request": 1})

    def test_a_request_without_a_chat_is_named(self, tmp_path: Path) -> None:
        requests = write_rows(tmp_path / "requests.jsonl", self.request("a", messages=7))
        with pytest.raises(DataError, match=r"1 without a prompt, first .*requests\.jsonl, line 1: params.messages"):
            imported(None, requests)


class TestStoredCompletions:
    def completion(self, key: str, **more: Any) -> dict[str, Any]:
        return {
            "object": "chat.completion",
            "id": key,
            "model": "gpt-4o-mini",
            "created": 1_760_000_000,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "far"}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
            "metadata": {},
        } | more

    def test_completions_are_joined_with_their_messages(self, tmp_path: Path) -> None:
        done = tmp_path / "completions.json"
        stored = [
            self.completion("chatcmpl-A"),
            self.completion("chatcmpl-B", metadata={"score": "0.25"}, messages=CHAT),
        ]
        done.write_text(json.dumps({"object": "list", "data": stored}), "utf-8")
        spoken = [("Be brief.", "system"), ("How far is the sun?", "user")]
        rows = [{"id": f"chatcmpl-A-{n}", "role": role, "content": text} for n, (text, role) in enumerate(spoken)]
        messages = write_rows(tmp_path / "messages.jsonl", *reversed(rows))
        scores = write_rows(tmp_path / "scores" / "s.jsonl", {"id": "chatcmpl-A", "score": 1})
        summary, found = imported(None, done, messages, scores=scores)
        assert (summary.format, found.texts) == ("openai-stored", ("How far is the sun?", "How far is the moon?"))
        assert found.scores[:, 0].tolist() == [1.0, 0.25]

    def test_a_completion_without_messages_is_left_out_with_what_to_do(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "c.jsonl", self.completion("chatcmpl-A", metadata={"score": 1}))
        with pytest.raises(DataError, match=r"1 without a prompt, first .*name the answers of `.../messages` too"):
            imported(None, path)


class TestVotes:
    def vote(self, winner: str, key: str = "q1", **more: Any) -> dict[str, Any]:
        chats = {f"conversation_{side}": [*CHAT, {"role": "assistant", "content": side}] for side in "ab"}
        return {
            "question_id": key,
            "model_a": "m",
            "model_b": "n",
            "winner": winner,
            "language": "English",
            **chats,
        } | more

    @pytest.mark.parametrize(
        ("winner", "scores"),
        [
            ("model_a", [1, 0]), ("B", [0, 1]), ("tie", [0.5, 0.5]), ("tie (bothbad)", [0.5, 0.5]), ("n", [0, 1]),
        ],
    )  # fmt: skip
    def test_a_vote_scores_both_models(self, tmp_path: Path, winner: str, scores: list[float]) -> None:
        summary, found = imported(None, write_rows(tmp_path / "votes.jsonl", self.vote(winner)))
        assert (summary.format, found.models, found.scores.tolist()) == ("votes", ("m", "n"), [scores])
        assert (found.texts, found.groups) == (("How far is the moon?",), ("English",))
        assert ("votes that both answers are bad, read as a tie: 1" in summary.notes) == ("bothbad" in winner)

    def test_the_table_of_kaggle_has_a_flag_for_each_outcome_and_lists_of_turns(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        path.write_text(
            "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
            '7,m,n,"[""Hi there"", ""And the sun?""]","[""a""]","[""b""]",0,1,0\n'
            '8,m,n,"[""Hi""]","[""a""]","[""b""]",1,1,0\n',
            "utf-8",
        )
        summary, found = imported(None, path)
        assert (found.ids, found.scores.tolist()) == (("7",), [[0, 1]])
        assert "And the sun?" in found.texts[0]
        assert summary.left_out == {"vote without one winner": 1}
        assert "votes on chats of several turns, of which the human turns are taken: 1" in summary.notes

    def test_a_sheet_of_preferences_names_its_column_of_winners(self, tmp_path: Path) -> None:
        path = tmp_path / "sheet.csv"
        path.write_bytes("\ufeffPrompt;Model A;Model B;Preferred\r\nWarum?;m;n;left\r\nWo?;m;n;right\r\n".encode())
        with pytest.raises(DataError, match=r"sheet\.csv names two models in each row.*--column winner=COLUMN"):
            imported(None, path)
        with pytest.raises(DataError, match=r"Column 'Preferred' is nearly 'Prefered'"):
            imported(None, path, columns=("winner=Prefered",))
        summary, found = imported(None, path, columns=("winner=Preferred",))
        assert (summary.format, found.models, found.scores.tolist()) == ("votes", ("m", "n"), [[1, 0], [0, 1]])

    def test_a_winner_that_nobody_knows_is_named_with_its_column_and_line(self, tmp_path: Path) -> None:
        other = self.vote("tie", "q2", conversation_b=[{"role": "user", "content": "else"}])
        rows = [self.vote("model_a"), self.vote("the left one", "q3"), other, self.vote("a", "q4", model_b="m")]
        summary, _ = imported(None, write_rows(tmp_path / "votes.jsonl", *rows))
        assert summary.left_out == {
            "winner that is no model of the vote": 1,
            "vote on two different chats": 1,
            "vote between a model and itself": 1,
        }
        listed = [json.loads(line) for line in Path(str(summary.left_out_file)).read_text("utf-8").splitlines()]
        assert (listed[0]["line"], listed[0]["detail"]) == (2, "column winner: the left one")

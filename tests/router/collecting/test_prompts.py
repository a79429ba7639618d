"""Logs of several shapes become prompts, with the answers and columns that are in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from router.collecting.calls.panel import Panel
from router.collecting.collect import CollectOptions, collect, plan_collection
from router.collecting.graders.base import GraderError
from router.collecting.prompts import PromptLog, read_prompt_log
from router.collecting.sampling import Selection
from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate
from tests.router.collecting.simulated import simulated, write_log, write_policy

PANEL = Panel((Candidate(name="cheap", model="openai/gpt-mini"), Candidate(name="best", model="openai/gpt-5")))


def read(tmp_path: Path, *rows: dict[str, Any], format_name: str | None = None) -> PromptLog:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_prompt_log([path], PANEL, format_name)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_columns_of_plain_rows(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        {
            "prompt": "Which letter?",
            "reference": "B",
            "choices": ["x", "y"],
            "tests": "assert True",
            "group": "letters",
            "weight": 3,
            "prompt_id": "p1",
            "model": "gpt-5",
            "answer": "y",
            "rating": 0.5,
        },
        {"prompt": "Which letter?", "prompt_id": "p1", "model": "cheap", "response": "x", "thumb": "down"},
        {"messages": [user("Hello"), {"role": "assistant", "content": "Hi"}], "prompt_id": "p2", "model": "best"},
    )
    one, other = log.samples
    assert (one.prompt_id, one.reference, one.choices, one.tests) == ("p1", "B", ("x", "y"), "assert True")
    assert (one.group, one.weight, one.answers) == ("letters", 3.0, {"best": "y", "cheap": "x"})
    assert {model: (said.kind, said.value) for model, said in one.feedback.items()} == {
        "best": ("rating", 0.5),
        "cheap": ("thumb", 0.0),
    }
    assert (other.messages, other.answers) == ((user("Hello"),), {"best": "Hi"})
    assert log.texts == ("Which letter?", "Hello")


def test_files_of_other_programs_are_known_by_their_columns(tmp_path: Path) -> None:
    said = {"choices": [{"message": {"role": "assistant", "content": "Paris"}}], "model": "gpt-5-2026"}
    batch = read(
        tmp_path,
        {"custom_id": "a", "body": {"model": "gpt-5", "messages": [user("Capital of France?")]}},
        {"custom_id": "a", "response": {"status_code": 200, "body": said}},
    )
    assert batch.samples[0].answers == {"best": "Paris"}
    spent = {"request_id": "r", "call_type": "acompletion", "model": "openai/gpt-mini", "spend": 0.25}
    spend = read(tmp_path, spent | {"messages": [user("Capital of France?")], "response": json.dumps(said)})
    assert spend.answers[0]["cheap"].cost_usd == 0.25
    assert spend.samples[0].answers == {"cheap": "Paris"}
    traced = {"id": "o", "traceId": "t", "type": "GENERATION", "input": "Capital of France?", "model": "gpt-5"}
    trace = read(tmp_path, traced | {"output": {"role": "assistant", "content": "Paris"}})
    assert trace.samples[0].answers == {"best": "Paris"}


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    log = read(
        tmp_path,
        {"prompt": "Good."},
        {"prompt": "[redacted]"},
        {"prompt": "Heavy.", "weight": -1},
        {"prompt": 7},
        {"messages": [user("Call it.")], "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [user("x") | {"content": [{"type": "text", "text": "What is it?"}, picture]}]},
    )
    assert [sample.messages[0]["content"] for sample in log.samples] == ["Good."]
    assert log.left_out == {
        "prompt redacted by the log": 1,
        "weight that is no number above 0": 1,
        "prompt that is neither text nor chat": 1,
        "prompts that need more than text: pictures, tools, or an answer in a given form": 2,
    }


@pytest.mark.parametrize(
    ("rows", "format_name", "message"),
    [
        ((), None, "must hold prompts; it holds no rows"),
        (({"promt": "x"},), None, "Column 'promt' is nearly 'prompt': rename it"),
        (({"prompt": "x"},), "tabel", "the format must be one of .* got 'tabel'. Did you mean table"),
    ],
)
def test_a_log_without_prompts_is_refused(tmp_path: Path, rows: Any, format_name: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, *rows, format_name=format_name)


def test_other_bad_input_is_refused_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    out = tmp_path / "o.jsonl"
    with simulated() as upstream:
        log, policy = write_log(tmp_path / "log.jsonl", 8), write_policy(tmp_path / "p.yaml", upstream.url)
        bare = tmp_path / "bare.jsonl"
        bare.write_text('{"prompt": "Hello"}\n')
        alone = write_policy(tmp_path / "alone.yaml", upstream.url, ("strong",))
        keyed = write_policy(tmp_path / "keyed.yaml", upstream.url, api_key_env="NO_SUCH_KEY")
        (tmp_path / "mine.jsonl").write_text("mine\n")
        for arguments, options, error, message in (
            ((alone, out), {}, DataError, "the policy must have two candidates or more"),
            ((keyed, out), {}, ConfigError, "variable NO_SUCH_KEY is not set here"),
            ((policy, out), {"graders": ("exakt",)}, GraderError, "Did you mean exact"),
            ((policy, tmp_path / "o.csv"), {}, DataError, "--out must end in .jsonl"),
            ((policy, tmp_path / "no" / "o.jsonl"), {}, DataError, "create it first"),
            ((policy, tmp_path / "mine.jsonl"), {}, DataError, "exists; give --force"),
            ((policy, out), {"selection": Selection(n=0)}, DataError, "--n must be at least 1"),
        ):
            with pytest.raises(error, match=message):
                collect([log], *arguments, CollectOptions(**options))
        with pytest.raises(GraderError, match="needs the column reference, and no prompt"):
            collect([bare], policy, out, CollectOptions(graders=("exact",)))
        with pytest.raises(GraderError, match="say with --grader how answers are graded"):
            collect([bare], policy, out, CollectOptions())
        assert not upstream.requests


def test_the_sample_is_random_reproducible_and_grows_without_changing(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", 400)
    few, many, other = (
        [one.sample.prompt_id for one in _chosen(log, Selection(n=n, seed=seed))]
        for n, seed in ((50, 0), (100, 0), (50, 1))
    )
    assert many[:50] == few
    assert len(set(many)) == 100
    assert set(few) != set(other)


def test_weights_are_drawn_in_proportion(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"number {n}", "weight": 9 if n == 0 else 1}) for n in range(10)]
    (tmp_path / "log.jsonl").write_text("\n".join(rows), "utf-8")
    chosen = _chosen(tmp_path / "log.jsonl", Selection(n=2000))
    share = sum(one.sample.messages[0]["content"] == "number 0" for one in chosen) / 2000
    assert share == pytest.approx(0.5, abs=0.05)
    assert len({one.sample.prompt_id for one in chosen}) == 2000


def _chosen(path: Path, selection: Selection) -> Any:
    from router.collecting.sampling import choose_prompts

    return choose_prompts(read_prompt_log([path], PANEL), selection)


@pytest.mark.usefixtures("_real_encoder")
def test_informative_prompts_are_unlike_each_other_and_say_how_they_were_chosen(tmp_path: Path) -> None:
    same = [{"prompt": f"What is {n} plus {n}?", "reference": str(2 * n)} for n in range(40)]
    odd = [{"prompt": "Write a sonnet about rain.", "reference": "x"}, {"prompt": "def f(x): return", "reference": "y"}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in same + odd), "utf-8")
    chosen = _chosen(path, Selection(n=6, how="informative"))
    assert {one.sample.drawn for one in chosen} == {"informative"}
    assert {row["prompt"] for row in odd} <= {one.sample.messages[0]["content"] for one in chosen}
    with simulated() as upstream:
        plan = plan_collection(
            [path],
            write_policy(tmp_path / "p.yaml", upstream.url),
            tmp_path / "o.jsonl",
            CollectOptions(selection=Selection(n=6, how="informative")),
        )
    assert (plan.drawn, plan.n_prompts) == ("informative", 6)

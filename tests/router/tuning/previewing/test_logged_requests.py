"""A log of any known kind becomes requests in the order of time; what cannot be replayed is left out and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from router.tuning.previewing.logged_requests import MERGED, MOST_ANSWERS, NO_COST, SPLIT, RequestLog, read_log
from tests.router.tuning.previewing.logs import write_log

CHAT = [{"role": "user", "content": "How far is the moon?"}]


def log_of(folder: Path, *rows: Any) -> RequestLog:
    return read_log([write_log(folder / "log.jsonl", *rows)])


def texts(log: RequestLog) -> list[str]:
    return [one.ask.text for one in log.requests]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "How far is the moon?"},
        {"messages": CHAT},
        {"messages": json.dumps(CHAT)},
        {"input": "How far is the moon?"},
        {"conversations": [{"from": "human", "value": "How far is the moon?"}]},
        {"body": {"model": "m", "messages": CHAT}},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": CHAT}},
        {"request_id": "1", "call_type": "acompletion", "model": "m", "messages": CHAT, "spend": 0.1},
        {"id": "1", "trace_id": "t", "type": "GENERATION", "model": "m", "input": json.dumps(CHAT)},
    ],
)
def test_each_shape_is_recognised_and_read(tmp_path: Path, row: dict[str, Any]) -> None:
    assert texts(log_of(tmp_path, row)) == ["How far is the moon?"]


def test_a_batch_counts_requests_whose_output_is_missing_or_failed_and_each_answer_once(tmp_path: Path) -> None:
    requests = [{"custom_id": str(n), "body": {"model": "m", "messages": CHAT}} for n in range(3)]
    body = {"model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 9}, "created": 1_760_000_000}
    outputs = [
        {"custom_id": "0", "response": {"status_code": 200, "body": body}},
        {"custom_id": "1", "response": {"status_code": 500, "body": {}}},
    ]
    write_log(tmp_path / "outputs.jsonl", *outputs)
    log = read_log([write_log(tmp_path / "requests.jsonl", *requests), tmp_path / "outputs.jsonl"])
    assert log.format == "openai-batch"
    assert [one.output_tokens for one in log.requests] == [9, None, None]
    assert log.left_out_counts == {"failed calls": 1}


def test_several_scores_of_langfuse_are_no_hindrance(tmp_path: Path) -> None:
    generation = {"id": "g", "trace_id": "t", "type": "GENERATION", "model": "m", "input": "Hi", "session_id": "s"}
    scores = [{"id": n, "name": n, "trace_id": "t", "value": 1, "data_type": "NUMERIC"} for n in ("good", "short")]
    log = log_of(tmp_path, generation, *scores)
    assert (log.format, texts(log), log.requests[0].session) == ("langfuse", ["Hi"], "s")


def test_requests_come_in_the_order_of_time_and_those_without_a_time_follow_the_one_before(tmp_path: Path) -> None:
    rows = [("late", 20), ("after late", None), ("early", "1970-01-01T00:00:10Z")]
    log = log_of(tmp_path, *({"prompt": text, "timestamp": when} for text, when in rows))
    assert texts(log) == ["early", "late", "after late"]
    assert [one.asked_at for one in log.requests] == [10, 20, 20]
    assert log.n_without_time == 1
    assert [one.asked_at for one in log_of(tmp_path, {"prompt": "a"}, {"prompt": "b"}).requests] == [0, 0]


def test_a_whole_chat_becomes_a_request_for_each_answer_in_a_session_of_its_own(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hello!"}]
    for number in range(2):
        chat += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "four" * 3}]
    log = log_of(tmp_path, {"messages": chat, "cost_usd": 0.5, "input_tokens": 9, "timestamp": 5})
    assert [len(one.query.messages) for one in log.requests] == [3, 5]
    assert [(one.cost_usd, one.output_tokens, one.input_tokens) for one in log.requests] == [(0.25, 3, None)] * 2
    assert {one.session for one in log.requests} == {"log.jsonl, line 1"}
    assert log.notes == {SPLIT: 1}


def test_a_chat_of_a_session_with_other_rows_is_one_request_without_its_answer(tmp_path: Path) -> None:
    chat = [*CHAT, {"role": "assistant", "content": "384,400 km"}]
    longer = [*chat, {"role": "user", "content": "And the sun?"}, {"role": "assistant", "content": "150 million km"}]
    log = log_of(tmp_path, {"messages": chat, "session_id": "s"}, {"messages": longer, "session_id": "s"})
    assert [len(one.query.messages) for one in log.requests] == [1, 3]
    assert SPLIT not in log.notes


def test_the_answers_of_several_models_to_one_prompt_are_one_request_of_unknown_cost(tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "model": model, "score": 1, "cost_usd": 0.1}
        for text in ("a", "b", "a")
        for model in ("m", "n")
    ]
    log = log_of(tmp_path, *rows, {"prompt": "c", "model": "m", "cost_usd": 0.2})
    assert texts(log) == ["a", "b", "a", "c"]
    assert [one.cost_usd for one in log.requests] == [None, None, None, 0.2]
    assert log.notes[MERGED] == 3


def test_equal_prompts_of_a_log_without_scores_stay_apart(tmp_path: Path) -> None:
    log = log_of(tmp_path, {"prompt": "Hi", "model": "m"}, {"prompt": "Hi", "model": "n"})
    assert len(log.requests) == 2


def test_a_cost_of_nothing_is_unknown(tmp_path: Path) -> None:
    log = log_of(tmp_path, {"prompt": "Hi", "cost_usd": 0})
    assert (log.requests[0].cost_usd, log.notes) == (None, {NO_COST: 1})


def test_broken_and_unusable_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_log(
        tmp_path / "log.jsonl",
        {"prompt": "Hi"},
        {"prompt": None},
        {"messages": [{"role": "nobody", "content": "Hi"}]},
        {"prompt": "[content removed]"},
        {"prompt": "Hi", "cost_usd": -1},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * (MOST_ANSWERS + 1)},
    )
    path.write_text(path.read_text() + '{"prompt": "torn', "utf-8")
    log = read_log([path])
    assert texts(log) == ["Hi"]
    assert log.left_out_counts == {
        "unreadable row": 1,
        "without a prompt": 1,
        "cost_usd that is no number of 0 or more": 1,
        "prompt that cannot be read": 1,
        "prompt redacted by the log": 1,
        "chat of more than 500 answers": 1,
    }
    assert {one.place.number for one in log.left_out} == {2, 3, 4, 5, 6, 7}


def test_a_picture_without_text_is_a_request(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    log = log_of(tmp_path, {"messages": [{"role": "user", "content": [picture]}]})
    assert texts(log) == [""]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "must hold prompts; it holds no rows"),
        ("not json\n", "no rows. 1 rows cannot be read, the first is .*line 1: must be JSON"),
        ('{"promt": "Hi"}\n', "it holds promt. Column 'promt' is nearly 'prompt': rename it"),
        ('{"prompt": ""}\n', r"at least one prompt, found none in 1 files \(1 without a prompt, the first is .*line 1"),
    ],
)
def test_a_log_without_prompts_says_what_it_holds(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=match):
        read_log([path])


def test_files_of_two_kinds_are_refused_and_a_named_kind_settles_it(tmp_path: Path) -> None:
    write_log(tmp_path / "a.jsonl", {"request_id": "1", "model": "m", "messages": CHAT, "spend": 0.1})
    write_log(tmp_path / "b.jsonl", {"id": "1", "trace_id": "t", "type": "GENERATION", "model": "m", "input": "Hi"})
    with pytest.raises(DataError, match=r"have several formats: langfuse .1 of 2 files., litellm-spend-logs"):
        read_log([tmp_path])
    assert read_log([tmp_path], "langfuse").n_files == 2
    with pytest.raises(DataError, match=r"the format must be one of .*; got 'langfus'. Did you mean langfuse\?"):
        read_log([tmp_path], "langfus")

"""Tests of the marks of harnesses: what may be one, and what a policy's own marks change."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from router.asking.harness import human_texts
from router.asking.harness_marks import SHIPPED_MARKS, HarnessMarks, MarkIndex, marks_with, shipped_marks
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.errors import ConfigError
from router.policies.loading import load_policy
from router.tuning.previewing.logged_requests import read_log
from router.tuning.previewing.replay import replay
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.tuning.previewing.logs import write_log

OWN = {"our-agent": {"blocks": ["acme-state"], "openings": ["[ACME] "], "headers": ["== {words} =="]}}


def read(marks: dict[str, Any], *texts: str) -> list[str]:
    index = MarkIndex.of([HarnessMarks.model_validate(marks)])
    return human_texts(texts, index, agentic=False, after_assistant=False)


@pytest.mark.parametrize(
    ("marks", "fault"),
    [
        ({"blocks": ["a b"]}, "blocks"),
        ({"blocks": ["<tag>"]}, "blocks"),
        ({"openings": ["abc"]}, "openings"),
        ({"openings": [" leading blank"]}, "openings"),
        ({"openings": ["x" * 201]}, "openings"),
        ({"headers": ["[{words} {words}]"]}, "at most once"),
        ({"headers": ["{name}: "]}, "headers"),
        ({"headers": [f"[{n}]" for n in range(21)]}, "headers"),
        ({"tags": ["a"]}, "tags"),
    ],
    ids=str,
)
def test_a_mark_that_cannot_be_one_is_refused(marks: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        HarnessMarks.model_validate(marks)


def test_a_pattern_is_no_regular_expression() -> None:
    assert read({"headers": ["(a+)+ {name}:"]}, "(a+)+ tool:", "answer", "hi") == ["", "", "hi"]
    assert read({"headers": ["(a+)+ {name}:"]}, "aaa tool:", "hi") == ["aaa tool:", "hi"]


def test_patterns_of_any_kind_take_linear_time() -> None:
    marks = {"headers": [f"[{{name}}{n}{{words}}]" for n in range(20)], "whole": ["x{name}y{words}z"]}
    texts = ["[" + "a1" * 300, "x" + "a" * 900, "[" * 700] * 1000
    started = time.thread_time()
    assert read(marks, *texts) == texts
    assert time.thread_time() - started < 5


def test_the_shipped_marks_are_commented_and_quoted_once() -> None:
    text = SHIPPED_MARKS.read_text("utf-8")
    for name, marks in yaml.safe_load(text)["harnesses"].items():
        entry = re.search(rf"^  {name}:\n(.*?)(?=^  \S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert entry is not None
        assert "#" in entry[1], f"{name} must say where its marks can be read"
        for kind, values in marks.items():
            assert len(values) == len({str(value) for value in values}), f"{name}.{kind}"


def test_marks_of_ones_own_are_added_to_those_that_are_shipped() -> None:
    assert marks_with({}) is shipped_marks()
    marks = marks_with({name: HarnessMarks.model_validate(one) for name, one in OWN.items()})
    texts = ["<acme-state>a</acme-state>hi", "[ACME] b", "== tool ==", "c", "<system-reminder>d</system-reminder>"]
    assert human_texts(texts, marks, agentic=False, after_assistant=False) == ["hi", "", "", "", ""]


CHAT = ({"role": "user", "content": "<acme-state>\nlong state\n</acme-state>\nWhat is a heat pump?"},)
BARE = ({"role": "user", "content": "What is a heat pump?"},)


def test_a_policys_own_marks_change_what_is_judged_and_its_digest(tmp_path: Path) -> None:
    plain, own = write_policy(tmp_path, name="plain"), write_policy(tmp_path, name="own", harness_marks=OWN)
    policies = [load_policy(path) for path in (plain, own)]
    renamed = policies[1].rules.file.model_copy(update={"name": "plain"})
    assert renamed.digest != policies[0].ref.digest
    encoder = FakeEncoder()
    router = Router(policies, {encoder.spec.identity: encoder})
    for name, text in (("plain", CHAT[0]["content"]), ("own", BARE[0]["content"])):
        encoder.encoded.clear()
        router.decide(RouteQuery(CHAT, overrides=Overrides(policy=name)))
        assert encoder.encoded == [text]


def test_a_preview_reads_a_log_by_the_marks_of_the_policy(tmp_path: Path) -> None:
    served = load_policy(write_policy(tmp_path, harness_marks=OWN))
    log = read_log([write_log(tmp_path / "log.jsonl", {"messages": list(CHAT)})], marks=served.marks)
    assert [one.ask.text for one in log.requests] == [BARE[0]["content"]]
    encoder = FakeEncoder()
    features = {one.ask.text: encoder.encode(one.ask.text) for one in log.requests}
    assert all(isinstance(one, RoutingDecision) for one in replay(served, log.requests, features).decisions)


def test_a_fault_in_a_policys_marks_names_the_key(tmp_path: Path) -> None:
    path = write_policy(tmp_path, harness_marks={"ours": {"openings": ["ab"]}})
    with pytest.raises(ConfigError, match=r"harness_marks\.ours\.openings\.0: .* at least 4 characters, got 'ab'"):
        load_policy(path)

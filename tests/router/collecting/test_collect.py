"""Collecting end to end over real HTTP: who is asked what, what is written, and what is never asked again."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.collecting.calls.asking import AskingLimits
from router.collecting.collect import CollectionListener, CollectOptions, CollectSummary, collect, plan_collection
from router.collecting.sampling import Selection
from router.tuning.outcomes.datasets import read_outcomes
from tests.router.collecting.simulated import ABILITIES, Simulated, rows_of, simulated, write_log, write_policy

N = 40


def run(folder: Path, upstream: Simulated, out: str = "outcomes.jsonl", **options: Any) -> CollectSummary:
    policy = folder / "policy.yaml"
    if not policy.exists():
        write_policy(policy, upstream.url)
    if not (folder / "log.jsonl").exists():
        write_log(folder / "log.jsonl", 2 * N)
    options.setdefault("selection", Selection(n=N))
    found = collect([folder / "log.jsonl"], policy, folder / out, CollectOptions(**options))
    assert found is not None
    return found


def test_every_candidate_is_asked_and_graded_although_one_is_rate_limited_and_one_fails_now_and_then(
    tmp_path: Path,
) -> None:
    with simulated(busy={"small": 30}, flaky={"medium": 0.2}) as upstream:
        summary = run(tmp_path, upstream)
    assert summary.stopped is None
    assert summary.calls == 4 * N == sum(upstream.paid.values())
    assert upstream.requests["medium"] > N, "the flaky model was asked again"
    assert summary.spent_usd == pytest.approx(upstream.usd)
    rows = rows_of(tmp_path / "outcomes.jsonl")
    assert len(rows) == 4 * N
    for row in rows:
        assert row["score"] == float(row["group"] in ABILITIES[row["model"]])
        assert (row["drawn"], row["grader"]) == ("random", "exact")
    outcomes = read_outcomes(tmp_path / "outcomes.jsonl")
    assert np.isfinite(outcomes.scores).all()
    assert np.nansum(outcomes.cost_usd) == pytest.approx(upstream.usd)


def test_the_file_has_the_same_bytes_however_many_calls_are_in_flight(tmp_path: Path) -> None:
    files = []
    for concurrency in (1, 7):
        folder = tmp_path / str(concurrency)
        folder.mkdir()
        with simulated() as upstream:
            run(folder, upstream, limits=AskingLimits(concurrency=concurrency))
            assert upstream.most_in_flight <= 4 * concurrency
        files.append((folder / "outcomes.jsonl").read_bytes())
    assert files[0] == files[1]


def test_a_second_run_a_second_grader_and_another_candidate_pay_nothing_twice(tmp_path: Path) -> None:
    with simulated() as upstream:
        write_policy(tmp_path / "policy.yaml", upstream.url, ("tiny", "strong"))
        run(tmp_path, upstream)
        first = (tmp_path / "outcomes.jsonl").read_bytes()
        assert sum(upstream.requests.values()) == 2 * N
        run(tmp_path, upstream)
        assert (tmp_path / "outcomes.jsonl").read_bytes() == first
        assert sum(upstream.requests.values()) == 2 * N
        run(tmp_path, upstream, out="contains.jsonl", graders=("contains", "exact"))
        assert sum(upstream.requests.values()) == 2 * N
        assert {"score_contains", "score_exact"} <= rows_of(tmp_path / "contains.jsonl")[0].keys()
        write_policy(tmp_path / "policy.yaml", upstream.url, ("tiny", "small", "strong"))
        run(tmp_path, upstream, out="three.jsonl")
        assert upstream.requests == {"tiny": N, "strong": N, "small": N}


def test_answers_in_the_log_are_those_of_their_model_and_are_not_asked_for(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", N, model="strong", answer="I do not know", cost_usd=0.5)
    with simulated() as upstream:
        plan = plan_collection(
            [tmp_path / "log.jsonl"],
            write_policy(tmp_path / "policy.yaml", upstream.url),
            tmp_path / "outcomes.jsonl",
            CollectOptions(selection=Selection(n=N)),
        )
        assert {one.model: (one.calls, one.from_log) for one in plan.models}["strong"] == (0, N)
        run(tmp_path, upstream)
        assert "strong" not in upstream.requests
    strong = [row for row in rows_of(tmp_path / "outcomes.jsonl") if row["model"] == "strong"]
    assert {(row["score"], row["cost_usd"]) for row in strong} == {(0.0, 0.5)}


def test_a_prompt_that_occurs_twice_is_two_rows_and_one_call(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "A question of the kind sum, number 1: which word is it?", "reference": "sum-1"})
    (tmp_path / "log.jsonl").write_text(f"{row}\n{row}\n", "utf-8")
    with simulated() as upstream:
        run(tmp_path, upstream)
        assert sum(upstream.paid.values()) == 4
    assert len({row["prompt_id"] for row in rows_of(tmp_path / "outcomes.jsonl")}) == 2


def test_the_plan_says_what_it_costs_and_asks_nothing(tmp_path: Path) -> None:
    with simulated() as upstream:
        policy = write_policy(tmp_path / "policy.yaml", upstream.url, expected_output_tokens=5)
        log = write_log(tmp_path / "log.jsonl", N)
        options = CollectOptions(selection=Selection(n=N), limits=AskingLimits(per_minute={"tiny": 10.0}))
        plan = plan_collection([log], policy, tmp_path / "outcomes.jsonl", options)
        assert not upstream.requests
        assert plan.calls == 4 * N
        assert plan.minutes == pytest.approx(N / 10)
        summary = run(tmp_path, upstream)
    assert plan.expected_usd == pytest.approx(summary.spent_usd, rel=0.3)
    assert plan.most_usd is not None
    assert plan.most_usd > summary.spent_usd


def test_nothing_is_asked_if_the_plan_is_refused(tmp_path: Path) -> None:
    with simulated() as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", N)
        watch = CollectionListener(confirm=lambda plan: False)
        assert collect([log], policy, tmp_path / "o.jsonl", CollectOptions(), watch) is None
        assert not upstream.requests
    assert not (tmp_path / "o.jsonl").exists()


def test_no_prompt_and_no_answer_is_logged_and_only_the_owner_reads_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), simulated(flaky={"tiny": 0.3}) as upstream:
        run(tmp_path, upstream)
    said = caplog.text + "".join(capfd.readouterr())
    assert "candidate tiny" in said, "failures are logged"
    assert "which word is it" not in said
    assert "spelling-" not in said
    store = tmp_path / "elle-collect.sqlite"
    assert store.stat().st_mode & 0o077 == 0
    with sqlite3.connect(store) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "which word is it" not in dump, "prompts are kept as digests only"


def test_a_model_that_always_fails_stops_the_run_and_keeps_what_was_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.collecting.calls.asking._BACKOFF_S", 0.001)
    with simulated(dead={"small"}) as upstream:
        summary = run(tmp_path, upstream)
        assert summary.stopped is not None
        assert "candidate 'small' failed 10 prompts in a row" in summary.stopped
        assert 0 < summary.n_done < N + 1
        before = upstream.requests["tiny"]
        upstream.dead.clear()
        assert run(tmp_path, upstream).stopped is None
        assert upstream.requests["tiny"] == N
        assert before <= N
    assert len(rows_of(tmp_path / "outcomes.jsonl")) == 4 * N


def test_a_refused_key_stops_the_run_at_once(tmp_path: Path) -> None:
    with simulated(denied={"medium"}) as upstream:
        summary = run(tmp_path, upstream, limits=AskingLimits(concurrency=1))
        assert "candidate 'medium' cannot be asked" in str(summary.stopped)
        assert upstream.requests["tiny"] < N

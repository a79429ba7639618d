"""What `elle collect` writes with our judge is what `elle label` asks about, and what `elle tune` reads."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.collecting.collect import CollectOptions, collect, plan_collection
from router.collecting.sampling import Selection
from router.tuning.outcomes.datasets import read_outcomes
from tests.router.collecting.simulated import rows_of, simulated, write_log, write_policy

N = 24
UNKNOWN = "I do not know"


def referee(model: str, prompt: str) -> str | None:
    """Find the answer better that is an answer; the first one if both are."""
    if model != "referee":
        return None
    data = dict(re.findall(r"<<<\w+ ([A-Z ]+)\n(.*?)\n\w+>>>", prompt, re.DOTALL))
    first, second = data["ANSWER A"] == UNKNOWN, data["ANSWER B"] == UNKNOWN
    verdict = "B" if first > second else "A"
    return json.dumps({"reason": "so it is", "verdict": verdict})


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    with simulated(answer=referee) as upstream:
        judges = write_policy(tmp_path / "judges.yaml", upstream.url, ("tiny",))
        judges.write_text(judges.read_text().replace("tiny", "referee"))
        policy = write_policy(tmp_path / "p.yaml", upstream.url, ("tiny", "medium"))
        graders = ("judge:model=referee,reference=medium",)
        options = CollectOptions(selection=Selection(n=N), graders=graders, judges=judges)
        summary = collect([write_log(tmp_path / "log.jsonl", N)], policy, tmp_path / "outcomes.jsonl", options)
    assert summary is not None
    assert summary.stopped is None
    return tmp_path / "outcomes.jsonl"


def test_the_plan_expects_the_calls_that_a_judge_who_makes_sense_gets(tmp_path: Path) -> None:
    with simulated(answer=referee) as upstream:
        judges = write_policy(tmp_path / "judges.yaml", upstream.url, ("tiny",))
        judges.write_text(judges.read_text().replace("tiny", "referee"))
        policy = write_policy(tmp_path / "p.yaml", upstream.url, ("tiny", "medium"))
        log = write_log(tmp_path / "log.jsonl", N)
        options = CollectOptions(
            selection=Selection(n=N), graders=("judge:model=referee,reference=medium",), judges=judges
        )
        plan = plan_collection([log], policy, tmp_path / "o.jsonl", options)
        collect([log], policy, tmp_path / "o.jsonl", options)
        judging = next(one for one in plan.models if one.role == "judge")
        # Both orders of every pair of different answers; medium is not compared with itself.
        assert upstream.requests["referee"] <= judging.calls == 2 * N
    assert plan.expected_usd is not None
    assert plan.most_usd is not None
    assert upstream.usd < plan.expected_usd < plan.most_usd / 4


def label(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["label", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_judged_outcomes_get_human_grades_that_a_certificate_reads(outcomes: Path, tmp_path: Path) -> None:
    judged = {(row["model"], row["group"]): row["score"] for row in rows_of(outcomes)}
    assert {kind: judged["tiny", kind] for kind in ("spelling", "capital", "sum", "proof")} == {
        "spelling": 0.5, "capital": 0.0, "sum": 0.0, "proof": 0.5,
    }  # fmt: skip
    assert {row["compared_with"] for row in rows_of(outcomes)} == {"medium"}
    label(outcomes, "--export", tmp_path / "sheet.csv", "--n", 10)
    with (tmp_path / "sheet.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        unknown = line["answer_a"] == UNKNOWN, line["answer_b"] == UNKNOWN
        line["verdict"] = "tie" if unknown[0] == unknown[1] else "b" if unknown[0] else "a"
    with (tmp_path / "sheet.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    found = json.loads(label(outcomes, "--import", tmp_path / "sheet.csv", "--out", tmp_path / "l.jsonl", "--json"))
    assert (found["n_prompts"], found["n_passed_over"]) == (10, 0)
    assert found["agreement"]["all"]["all"]["agreement"] == 1
    humans = read_outcomes(tmp_path / "l.jsonl").humans
    assert humans is not None
    known = np.isfinite(humans.scores)
    assert known.all(axis=1).sum() == 10
    assert (known.any(axis=1) == known.all(axis=1)).all()
    assert humans.at_random[known].all()

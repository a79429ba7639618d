"""`elle collect` on the command line: what it prints, what it asks before it spends, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from tests.router.collecting.simulated import Simulated, simulated, write_log, write_policy


def elle(folder: Path, upstream: Simulated, *options: str, answer: str | None = None) -> Result:
    log, policy = write_log(folder / "log.jsonl", 12), write_policy(folder / "p.yaml", upstream.url)
    arguments = ["collect", str(log), "--policy", str(policy), "--out", str(folder / "o.jsonl"), *options]
    return CliRunner().invoke(cli, arguments, input=answer)


def test_a_dry_run_prints_the_plan_and_asks_nothing(tmp_path: Path) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream, "--dry-run", "--json", "--rate", "60", "--rate", "tiny=30")
        assert done.exit_code == 0, done.output
        plan = json.loads(done.stdout)
        assert (plan["n_prompts"], plan["calls"]) == (12, 48)
        assert {one["model"]: one["minutes"] for one in plan["models"]} == {
            "tiny": 0.4,
            "small": 0.2,
            "medium": 0.2,
            "strong": 0.2,
        }
        assert "48 calls, about 0." in elle(tmp_path, upstream, "--dry-run").stdout
        assert not upstream.requests


def test_without_yes_it_asks_and_without_a_terminal_it_refuses(tmp_path: Path) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream)
        assert done.exit_code == 2
        assert "give --yes to make these calls" in done.stderr
        assert not upstream.requests


def test_what_it_did_goes_to_stdout_and_how_far_it_is_to_stderr(tmp_path: Path) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream, "--yes", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["written"]["n_rows"] == 48
        assert "asking: 12 of 12, 0.00" in done.stderr
        done = elle(tmp_path, upstream, "--yes")
        assert "12 of 12 prompts have a score of every candidate" in done.stdout
        assert "strong: mean score 1.000" in done.stdout


def test_the_exit_status_says_that_the_budget_stopped_it(tmp_path: Path) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream, "--yes", "--max-calls", "9")
        assert done.exit_code == 3
        assert "Stopped early: the budget allows no further prompt." in done.stdout
        assert sum(upstream.paid.values()) == 8


def test_the_plan_of_labels_says_how_many_and_with_what_chance(tmp_path: Path) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream, "--plan", "--n", "2000", "--max-loss", "0.05", "--json")
        needs = json.loads(done.stdout)["needs"]
        assert not upstream.requests
    easy = next(one for one in needs if (one["mean_loss"], one["differing"]) == (0.0, 0.05))
    hard = next(one for one in needs if (one["mean_loss"], one["differing"]) == (0.025, 0.2))
    assert 0 < easy["certifying"] < 800 < hard["certifying"]
    assert easy["to_collect"] == pytest.approx(easy["certifying"] / 0.4, abs=1)
    assert easy["chance"] > 0.8 > hard["chance"]
    assert "of the collected prompts certify" in elle(tmp_path, upstream, "--plan").stdout


@pytest.mark.parametrize("rate", ["fast", "tiny=", "tiny=0", "inf"])
def test_a_rate_that_is_no_number_is_refused(tmp_path: Path, rate: str) -> None:
    with simulated() as upstream:
        done = elle(tmp_path, upstream, "--rate", rate)
        assert done.exit_code == 2
        assert "--rate must be calls a minute, as in 60 or gpt-5=60" in done.stderr

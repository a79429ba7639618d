"""Prompts that were chosen for what they teach are fitted on and certify nothing, also if one file holds both kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.tuning.outcomes import feature_cache
from router.tuning.outcomes.datasets import read_outcomes
from tests.fakes import FakeEncoder
from tests.router.collecting.simulated import rows_of, simulated, write_log, write_policy

N_LOG, N_RANDOM, N_CHOSEN = 700, 300, 200


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code in (0, 3), done.output
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Collect a random and an informative sample of one log, which share some prompts, and join their files."""
    monkeypatch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
    monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / "cache"))
    with simulated() as upstream:
        log = write_log(tmp_path / "log.jsonl", N_LOG)
        policy = write_policy(tmp_path / "p.yaml", upstream.url, ("small", "strong"))
        for how, n in (("informative", N_CHOSEN), ("random", N_RANDOM)):
            out = tmp_path / f"{how}.jsonl"
            run("collect", log, "--policy", policy, "--out", out, "--n", n, "--select", how, "--yes", "--json")
    rows = rows_of(tmp_path / "informative.jsonl") + rows_of(tmp_path / "random.jsonl")
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path


def test_only_the_random_sample_certifies_and_all_of_it_does(folder: Path) -> None:
    chosen = {row["prompt_id"] for row in rows_of(folder / "informative.jsonl")}
    drawn = {row["prompt_id"] for row in rows_of(folder / "random.jsonl")}
    assert chosen & drawn, "some prompts were drawn twice"
    outcomes = read_outcomes(folder / "mixed.jsonl")
    assert {key for key, only in zip(outcomes.ids, outcomes.informative, strict=True) if not only} == drawn
    fit = run("fit", folder / "mixed.jsonl", "--holdout", 0.4, "--out", folder / "probe", "--json")
    pair = ("--weak", "small", "--strong", "strong", "--max-loss", 0.6, "--json")
    tuned = run("tune", folder / "probe", folder / "mixed.jsonl", *pair)
    assert tuned["n_calibration"] == fit["n_held_out"]
    assert 0.3 * N_RANDOM < fit["n_held_out"] < 0.5 * N_RANDOM
    assert fit["n_prompts"] == len(chosen | drawn) - fit["n_held_out"]


def test_other_data_certify_with_their_random_rows_although_the_fit_saw_the_others(folder: Path) -> None:
    run("fit", folder / "informative.jsonl", "--out", folder / "probe", "--json")
    rows = [row for row in rows_of(folder / "mixed.jsonl") if row["drawn"] == "informative"]
    chosen = {row["prompt_id"] for row in rows}
    fresh = [row for row in rows_of(folder / "random.jsonl") if row["prompt_id"] not in chosen]
    (folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + fresh), "utf-8")
    pair = ("--weak", "small", "--strong", "strong", "--max-loss", 0.6, "--json")
    assert run("tune", folder / "probe", folder / "other.jsonl", *pair)["n_calibration"] == len(fresh) // 2

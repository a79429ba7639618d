"""Tests of evaluations on the latest prompts only: those that a fit left out by their time."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from probes.errors import DataError
from router.tuning.outcomes import feature_cache
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.holdout_by_time import latest_prompts, parse_latest
from router.tuning.outcomes.times import seconds_of
from tests.fakes import FakeEncoder
from tests.router.tuning.judging.evaluation_data import answers, evaluated, run, write


class TestTime:
    def test_only_the_latest_prompts_are_evaluated(self, tmp_path: Path) -> None:
        times: list[object] = [f"2026-11-{day:02d}T12:00:00Z" for day in range(1, 11)]
        data = answers({"small": [0] * 8 + [1, 1], "large": [1] * 10}, created_at=times)
        found = evaluated(tmp_path, data[::-1], "--holdout", "latest:20%")
        assert found["n"] == 2
        assert found["rules"][0]["quality"]["value"] == 1.0
        assert found["period"].startswith("the latest 20% of the prompts, 2026-11-09 12:00 to 2026-11-10 12:00 UTC")

    def test_prompts_without_a_time_are_not_held_out_and_are_counted(self, tmp_path: Path) -> None:
        times: list[object] = [1764000000, 1764000100.5, "1764000200000", "yesterday", None]
        data = answers({"small": [0, 0, 1, 1, 1], "large": [1] * 5}, when=times)
        found = evaluated(tmp_path, data, "--holdout", "latest:0.34", "--time-column", "when")
        assert found["n"] == 1
        assert "2 prompts without a time are left out" in found["period"]

    @pytest.mark.parametrize("text", ["latest", "latest:0", "latest:100%", "oldest:20%", "20%", "latest:2"])
    def test_a_share_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(DataError, match="as in latest:20%"):
            parse_latest(text)

    def test_data_without_times_cannot_be_held_out_by_time(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data.jsonl", answers({"small": [1, 0]}))
        with pytest.raises(DataError, match="--time-column"):
            latest_prompts(read_outcomes(path), 0.5)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("2026-11-28", datetime(2026, 11, 28, tzinfo=UTC).timestamp()),
            ("20261128", datetime(2026, 11, 28, tzinfo=UTC).timestamp()),
            (date(2026, 11, 28), datetime(2026, 11, 28, tzinfo=UTC).timestamp()),
            ("2026-11-28T10:00:00+02:00", datetime(2026, 11, 28, 8, tzinfo=UTC).timestamp()),
            ("2026-11-28 08:00:00", datetime(2026, 11, 28, 8, tzinfo=UTC).timestamp()),
            (datetime(2026, 11, 28, 8), datetime(2026, 11, 28, 8, tzinfo=UTC).timestamp()),
            (1764316800, 1764316800.0),
            ("1764316800", 1764316800.0),
            (1764316800123, 1764316800.123),
            (1764316800123456, 1764316800.123456),
            (1764316800123456789, 1764316800.1234567),
        ],
    )
    def test_times_are_read_as_people_write_them(self, value: object, seconds: float) -> None:
        assert seconds_of(value) == pytest.approx(seconds, abs=1e-3)

    @pytest.mark.parametrize("value", [None, "", "soon", True, float("nan"), -5, [1], {}])
    def test_what_is_no_time_is_missing(self, value: object) -> None:
        assert np.isnan(seconds_of(value))


def test_what_a_fit_left_out_by_time_is_what_tune_certifies_with_and_evaluate_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
    monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        text = f"question {i}"
        fails = {"small": 1 / (1 + np.exp(2 - 3 * encoder.encode(text)[0])), "large": 0.05}
        when = f"2026-{1 + i // 40:02d}-01T00:00:{i % 40:02d}Z"
        rows += [
            {"prompt": text, "model": m, "score": int(rng.random() > p), "timestamp": when} for m, p in fails.items()
        ]
    data = write(tmp_path / "data.jsonl", rows)
    fitted = run("fit", data, "--holdout", "latest:30%", "--out", tmp_path / "probe", "--json")
    assert fitted.exit_code == 0, fitted.output
    assert (json.loads(fitted.stdout)["n_prompts"], json.loads(fitted.stdout)["n_held_out"]) == (280, 120)
    pair = ("--weak", "small", "--strong", "large", "--max-strong-share", 0.9, "--out", tmp_path / "policy.yaml")
    tuned = run("tune", tmp_path / "probe", data, *pair, "--json")
    assert tuned.exit_code == 0, tuned.output
    assert json.loads(tuned.stdout)["n_calibration"] == 120
    given = ("--policy", tmp_path / "policy.yaml", data, "--holdout", "latest:30%", "--json")
    found = json.loads(run("evaluate", *given).stdout)
    assert (found["n"], found["n_seen_in_fit"]) == (120, 0)
    assert run("fit", data, "--holdout", "a lot", "--out", tmp_path / "x").exit_code == 1

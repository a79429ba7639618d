"""The reproduction's controls find what was planted, its data are what they are said to be, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reproduce import corpora
from benchmarks.reproduce.analysis import analyse
from probes.losses import LossPairs

ROOT = Path(__file__).parents[2]


def planted(noise: float, n: int = 1500):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 24))
    loss = X[:, :12].sum(axis=1) + noise * rng.normal(size=n)
    lengths = (50 * np.abs(loss)).astype(int) + 1
    return LossPairs(X, loss), rng.integers(30, size=n), [rng.bytes(int(n)) for n in lengths]


def test_a_planted_linear_signal_is_found_and_its_controls_find_nothing():
    pairs, groups, texts = planted(noise=np.sqrt(12), n=6000)
    figures, (actual, predicted) = analyse(pairs, groups, texts)
    # Half of the variance is noise, so no probe can do better than sqrt(1/2).
    assert figures["probe"]["low"] < np.sqrt(0.5) < figures["probe"]["high"]
    for control in ("shuffled", "l2_norm", "gzip_length"):
        assert abs(figures[control]["r"]) < 0.12, "four standard errors of a correlation over 1,200 samples"
    assert figures["shuffled"]["low"] <= 0 <= figures["shuffled"]["high"]
    assert figures["held_out_groups"]["r"] == pytest.approx(figures["probe"]["r"], abs=0.1)
    assert len(actual) == len(predicted) == figures["n_held_out"] == 1200


def test_more_samples_and_more_dimensions_help():
    figures, _ = analyse(*planted(noise=1.0)[:2], None)
    assert "gzip_length" not in figures
    assert [point["n"] for point in figures["scaling"]] == [300, 500, 1000, 1200]
    by_size = [point["prefix"] for point in figures["dimensions"][:-1]]
    assert by_size == sorted(by_size)
    # The signal sits in the first half: prefixes beat random dimensions until both have all of it.
    half = figures["dimensions"][-2]
    assert half["k"] == 12
    assert half["prefix"] > half["random_mean"] + 0.1


def test_a_signal_that_lives_in_groups_does_not_survive_holding_them_out():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 50)
    # Each group has its own place in the embedding and its own loss, unrelated to each other.
    X = rng.normal(size=(20, 30))[groups] + 0.1 * rng.normal(size=(1000, 30))
    loss = rng.normal(size=20)[groups] + 0.1 * rng.normal(size=1000)
    figures, _ = analyse(LossPairs(X, loss), groups, None)
    assert figures["probe"]["r"] > 0.9
    assert figures["held_out_groups"]["r"] < 0.5


@pytest.mark.parametrize("read", [lambda: corpora.sounds(200), lambda: corpora.scenes(200)])
def test_generated_samples_are_reproducible_and_finite(read):
    one, two = read(), read()
    assert len(one.samples) == len(one.groups) == 200
    for a, b in zip(one.samples, two.samples, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32
        assert np.isfinite(a).all()


def test_photo_crops_for_training_and_for_measuring_come_from_different_tiles():
    pytest.importorskip("sklearn", reason="the photographs ship with scikit-learn")
    pytest.importorskip("PIL", reason="scikit-learn reads its photographs with pillow")
    corpus = corpora.photo_crops(10_000)
    seen = {crop.tobytes() for crop in corpus.train}
    assert len(corpus.train) > 1000
    assert not seen & {crop.tobytes() for crop in corpus.samples}


@pytest.mark.slow
def test_the_reproduction_runs_and_writes_everything(tmp_path):
    pytest.importorskip("torch", reason="the models need the torch extra")
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    command = [sys.executable, "-m", "benchmarks.reproduce_elle", "--only", "digits-mae,text-causal"]
    done = subprocess.run(
        [*command, "--scale", "0.02", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in document["rows"]] == ["text-causal", "digits-mae"]
    assert document["commit"]
    assert "text-causal" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"figure.png", "calibration.png"}

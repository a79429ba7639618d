"""Tests of saving a probe: what goes in comes out, and writing is all or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from probes import atomic_write as replace
from probes.artifacts import store as artifact
from probes.errors import (
    ArtifactError,
    DataError,
)
from tests.probes.artifacts.edits import MakeProbe


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "beta", "venn_abers"])
def test_a_loaded_probe_predicts_the_same_to_the_last_bit(
    tmp_path: Path, kind: str, make_probe: MakeProbe, make_data: Callable[..., Any]
) -> None:
    probe, X = make_probe(kind), make_data(seed=5)[0]
    artifact.save(probe, tmp_path / "a" / "probe")
    loaded = artifact.load(tmp_path / "a" / "probe")
    for name in ("loss", "risk", "leverage", "unfamiliar"):
        assert_array_equal(getattr(loaded.predict(X), name), getattr(probe.predict(X), name))
    assert_array_equal(loaded.fitted_on, probe.fitted_on)
    assert loaded.identity == probe.identity
    assert loaded.card == probe.card
    assert (loaded.models, loaded.encoder, loaded.leverage_limit) == (
        probe.models,
        probe.encoder,
        probe.leverage_limit,
    )


def test_a_probe_without_encoder_limit_and_calibration_comes_back(tmp_path: Path, make_probe: MakeProbe) -> None:
    bare = dataclasses.replace(make_probe(), encoder=None, encoder_identity="", leverage_limit=None, calibrators=())
    artifact.save(bare, tmp_path / "probe")
    loaded = artifact.load(tmp_path / "probe")
    assert loaded.identity == bare.identity
    assert (loaded.encoder, loaded.leverage_limit, loaded.calibrators) == (None, None, ())
    assert "none; features from elsewhere" in (tmp_path / "probe" / "README.md").read_text()


def test_the_directory_holds_data_and_a_card_for_people(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["README.md", "probe.json", "probe.safetensors"]
    card = (saved / "README.md").read_text()
    for fact in ("# A made-up probe", "| small | 300 |", "| apgr.value | 0.6 |", "ab" * 32, "00" * 32):
        assert fact in card
    document = json.loads((saved / "probe.json").read_text())
    raw = (saved / "probe.safetensors").read_bytes()
    assert document["tensors"] == {"sha256": hashlib.sha256(raw).hexdigest(), "n_bytes": len(raw)}


def test_loading_runs_no_pickle_and_imports_no_framework(saved: Path) -> None:
    code = (
        "import sys; from probes.artifacts import store; store.load(sys.argv[1]); "
        "print(sorted({'torch', 'sklearn', 'transformers', 'scipy', 'cryptography'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_saving_again_replaces_the_whole_artifact(saved: Path, make_probe: MakeProbe) -> None:
    other = make_probe("isotonic")
    artifact.save(other, saved)
    assert artifact.load(saved).identity == other.identity
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_without_the_one_step_exchange_saving_again_still_replaces(
    saved: Path, make_probe: MakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "_exchange", lambda a, b: False)
    other = make_probe("isotonic")
    artifact.save(other, saved)
    assert artifact.load(saved).identity == other.identity
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_a_disk_that_fails_half_way_leaves_the_old_artifact(
    saved: Path, make_probe: MakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artifact.load(saved).identity
    synced: list[int] = []

    def failing(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ArtifactError, match="No space left"):
        artifact.save(make_probe("isotonic"), saved)
    monkeypatch.undo()
    assert artifact.load(saved).identity == before
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_a_directory_of_other_things_is_never_replaced(tmp_path: Path, make_probe: MakeProbe) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match=r"it holds thesis.tex"):
        artifact.save(make_probe(), tmp_path)
    with pytest.raises(ArtifactError, match="must be a directory"):
        artifact.save(make_probe(), tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_card_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path, make_probe: MakeProbe) -> None:
    probe = make_probe()
    for metrics in ({"ece": float("nan")}, {"ece": np.float32(0.1)}, {"ece": object()}):
        card = dataclasses.replace(probe.card, metrics=metrics)
        with pytest.raises(DataError, match="plain, finite JSON"):
            artifact.save(dataclasses.replace(probe, card=card), tmp_path / "probe")
    assert list(tmp_path.iterdir()) == []

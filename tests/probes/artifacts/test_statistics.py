"""Tests of the statistics that a probe may be saved with, from which `elle adapt` starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from probes.artifacts import store as artifact
from probes.errors import (
    ArtifactDigestError,
    ArtifactNotFoundError,
    ArtifactTruncatedError,
    ArtifactValueError,
    DataError,
    StatisticsNotFoundError,
)
from probes.regression.prior import Prior
from tests.probes.artifacts.edits import MakeProbe, edit_json


@pytest.fixture
def prior() -> Prior:
    rng = np.random.default_rng(3)
    Y = rng.random((40, 2))
    Y[:5, 1] = np.nan
    return Prior.of(rng.standard_normal((40, 8)), Y)


def test_statistics_come_back_to_the_last_bit_and_change_neither_identity_nor_loading(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    again = artifact.load_prior(tmp_path / "probe")
    assert again.tensors().keys() == prior.tensors().keys()
    for name, array in prior.tensors().items():
        assert_array_equal(again.tensors()[name], array)
    (tmp_path / "probe" / artifact.STATISTICS).unlink()
    assert artifact.load(tmp_path / "probe").identity == make_probe().identity
    with pytest.raises(ArtifactNotFoundError, match=r"statistics\.safetensors does not exist"):
        artifact.load_prior(tmp_path / "probe")


def test_a_probe_saved_without_statistics_says_how_to_get_them(saved: Path) -> None:
    with pytest.raises(StatisticsNotFoundError, match="--keep-statistics"):
        artifact.load_prior(saved)


def test_statistics_of_an_earlier_probe_do_not_survive_its_replacement(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    artifact.save(make_probe(), tmp_path / "probe")
    assert artifact.STATISTICS not in {file.name for file in (tmp_path / "probe").iterdir()}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw[:-8], ArtifactTruncatedError),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), ArtifactDigestError),
    ],
)
def test_damaged_statistics_are_a_named_error(
    tmp_path: Path,
    make_probe: MakeProbe,
    prior: Prior,
    change: Callable[[bytes], bytes],
    error: type[Exception],
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    file = tmp_path / "probe" / artifact.STATISTICS
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(error):
        artifact.load_prior(tmp_path / "probe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["0.gram"].fill(np.inf), "must hold the statistics of a fit: gram"),
        (lambda t: t.clear() or t.update(Prior.of(np.eye(8), np.eye(8)[:, :1]).tensors()), "2 models; got 1"),
    ],
)
def test_forged_statistics_are_a_named_error_though_their_digest_is_right(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    file = tmp_path / "probe" / artifact.STATISTICS
    tensors = {name: array.copy() for name, array in from_safetensors(file.read_bytes()).items()}
    change(tensors)
    raw = to_safetensors(tensors)
    file.write_bytes(raw)
    edit_json(
        tmp_path / "probe",
        lambda d: d["statistics"].update(sha256=hashlib.sha256(raw).hexdigest(), n_bytes=len(raw)),
    )
    with pytest.raises(ArtifactValueError, match=message):
        artifact.load_prior(tmp_path / "probe")


def test_statistics_of_another_width_are_refused(tmp_path: Path, make_probe: MakeProbe) -> None:
    with pytest.raises(DataError, match="as many features"):
        artifact.save(make_probe(), tmp_path / "probe", Prior.of(np.eye(4), np.eye(4)[:, :2]))

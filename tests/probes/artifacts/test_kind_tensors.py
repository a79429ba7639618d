"""Probes that know kinds: they are saved, read with bounds, and covered by identity and card; old probes load."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.artifacts import store
from probes.errors import ArtifactDigestError, ArtifactSchemaError, ArtifactValueError, DimensionError
from probes.probe import DifficultyProbe
from tests.probes.artifacts.test_task_tensors import damaged
from tests.probes.kinds.made_kinds import made_kinds

MakeProbe = Callable[..., DifficultyProbe]


@pytest.fixture
def probe(make_probe: MakeProbe) -> DifficultyProbe:
    return replace(make_probe(), kinds=made_kinds())


def test_kinds_are_saved_and_change_no_prediction(
    make_probe: MakeProbe, probe: DifficultyProbe, tmp_path: Path
) -> None:
    store.save(make_probe(), tmp_path / "plain")
    assert "kinds" not in json.loads((tmp_path / "plain" / "probe.json").read_text("utf-8"))
    assert store.load(tmp_path / "plain").kinds is None
    store.save(probe, tmp_path / "kinds")
    loaded = store.load(tmp_path / "kinds")
    assert loaded.kinds is not None
    assert (loaded.kinds.names, loaded.kinds.assumed) == (probe.kinds.names, probe.kinds.assumed)  # type: ignore[union-attr]
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32) + 5
    for x in rows:
        assert loaded.kinds.nearest(x) == probe.kinds.nearest(x)  # type: ignore[union-attr]
    assert np.array_equal(loaded.predict(rows).loss, make_probe().predict(rows).loss)
    card = (tmp_path / "kinds" / "README.md").read_text("utf-8")
    assert "- greeting (assumed losses)\n- law\n" in card


def test_the_identity_covers_every_part_of_the_kinds(make_probe: MakeProbe, probe: DifficultyProbe) -> None:
    kinds = made_kinds()
    others = [
        make_probe(),
        replace(probe, kinds=replace(kinds, names=("a", *kinds.names[1:]))),
        replace(probe, kinds=replace(kinds, assumed=(False,) * 5)),
        replace(probe, kinds=replace(kinds, means=kinds.means * np.float32(1.001))),
        replace(probe, kinds=replace(kinds, projection=kinds.projection[:3])),
        replace(probe, kinds=replace(kinds, temperature=kinds.temperature * 2)),
        replace(probe, kinds=replace(kinds, limit=kinds.limit + 1)),
    ]
    assert len({one.identity for one in [probe, *others]}) == 8


def test_damaged_kinds_are_refused_by_name(probe: DifficultyProbe, tmp_path: Path) -> None:
    def without_means(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        del tensors["kinds.means"]

    def without_entry(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        del document["kinds"]

    def other_numbers(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        tensors["kinds.means"] = tensors["kinds.means"].astype(np.float64)

    def many_scalars(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        tensors["kinds.scalars"] = np.ones(3)

    def long_name(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["kinds"]["names"][0] = "x" * 10_000  # type: ignore[index]

    def many_names(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["kinds"] = {"names": [str(i) for i in range(100_000)], "assumed": [True] * 100_000}

    def other_name(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["kinds"]["names"][0] = "praise"  # type: ignore[index]

    def no_truth(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["kinds"]["assumed"][0] = 1  # type: ignore[index]

    for change, error, message in (
        (without_means, ArtifactSchemaError, r"kinds\.means"),
        (without_entry, ArtifactSchemaError, r"kinds\."),
        (other_numbers, ArtifactSchemaError, r"kinds\.means as float32"),
        (many_scalars, ArtifactValueError, r"kinds\.scalars must have shape"),
        (long_name, ArtifactValueError, "the name of a kind must be at most"),
        (many_names, ArtifactValueError, "2 to 256 kinds"),
        (other_name, ArtifactDigestError, "must describe the probe it names"),
        (no_truth, ArtifactSchemaError, r"kinds\.assumed"),
    ):
        folder = tmp_path / change.__name__
        store.save(probe, folder)
        damaged(folder, change)
        with pytest.raises(error, match=message):
            store.load(folder)


def test_kinds_must_have_the_features_of_the_probe(make_probe: MakeProbe) -> None:
    with pytest.raises(DimensionError, match="of the probe's 8 features; got 9"):
        replace(make_probe(), kinds=made_kinds(9))

"""Probes with tasks: what they predict, what is saved of them, and what their identity covers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from probes.artifacts import store
from probes.artifacts.card_binding import document_digest
from probes.errors import ArtifactDigestError, ArtifactSchemaError, ArtifactValueError, DataError
from probes.probe import DifficultyProbe
from probes.tasks.offsets import TaskOffsets

MakeProbe = Callable[..., DifficultyProbe]
Data = Callable[..., tuple[np.ndarray, np.ndarray]]


def offsets() -> TaskOffsets:
    none = np.zeros((0, 2), np.int64)
    empty = TaskOffsets((), np.array([[0.09, 0.05], [0.05, 0.08]]), np.array([0.04, 0.06]), none, none)
    return empty.add("mail", [[0.6, 0.1]] * 5).add("code", [[-0.3, np.nan]])


@pytest.fixture
def probe(make_probe: MakeProbe) -> DifficultyProbe:
    return replace(make_probe(), tasks=offsets())


def test_an_offset_is_added_before_calibration_and_a_batch_predicts_like_one(
    probe: DifficultyProbe, make_data: Data
) -> None:
    X = make_data(40)[0]
    tasks = ["", "mail", "code", "unknown"] * 10
    found = probe.predict(X, tasks)
    plain = replace(probe, tasks=None).predict(X)
    for row, task in enumerate(tasks):
        one = probe.predict_one(X[row], task)
        assert (one.loss, one.risk) == (tuple(found.loss[row].tolist()), tuple(found.risk[row].tolist()))
        offset = {"mail": offsets().offset("mail"), "code": offsets().offset("code")}.get(task, np.float32(0))
        assert np.array_equal(found.loss[row], plain.loss[row] + offset)
        for column, calibrator in enumerate(probe.calibrators):
            assert found.risk[row, column] == calibrator.predict_one(float(found.loss[row, column]))


def test_without_a_task_and_with_an_unknown_one_no_bit_of_a_prediction_moves(
    make_probe: MakeProbe, probe: DifficultyProbe, make_data: Data
) -> None:
    X = make_data(20)[0]
    plain = make_probe().predict(X)
    for tasks in (None, [""] * 20, ["unknown"] * 20):
        found = probe.predict(X, tasks)
        assert np.array_equal(found.loss, plain.loss)
        assert np.array_equal(found.risk, plain.risk)


def test_tasks_are_saved_and_the_identity_covers_them_but_only_where_there_are_any(
    make_probe: MakeProbe, probe: DifficultyProbe, tmp_path: Path
) -> None:
    store.save(make_probe(), tmp_path / "plain")
    assert "tasks" not in json.loads((tmp_path / "plain" / "probe.json").read_text("utf-8"))
    store.save(probe, tmp_path / "tasks")
    loaded = store.load(tmp_path / "tasks")
    assert loaded.tasks is not None
    assert loaded.tasks.keys == ("code", "mail")
    assert loaded.identity == probe.identity
    others = [
        replace(probe, tasks=None),
        replace(probe, tasks=offsets().add("mail", [[0.1, 0.1]])),
        replace(probe, tasks=replace(offsets(), keys=("code", "mall"))),
        replace(probe, tasks=replace(offsets(), variance=np.array([0.04, 0.07]))),
    ]
    assert len({one.identity for one in [probe, *others]}) == 5
    added = loaded.tasks.add("mail", [[0.1, 0.2]])
    assert replace(loaded, tasks=added.withdraw("mail", [[0.1, 0.2]])).identity == probe.identity


def test_the_identity_of_a_probe_without_tasks_is_computed_as_it_always_was(make_probe: MakeProbe) -> None:
    probe = make_probe()
    kinds = [calibrator.kind for calibrator in probe.calibrators]
    digest = sha256(repr((probe.encoder_identity, probe.models, probe.leverage_limit, kinds)).encode())
    for name, array in sorted(probe.tensors().items()):
        if name != "fitted_on":
            digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    assert probe.identity == digest.hexdigest()


def damaged(folder: Path, change: Callable[[dict[str, object], dict[str, np.ndarray]], None]) -> None:
    """Change document and tensors, and make every digest but the identity right again."""
    document = json.loads((folder / "probe.json").read_text("utf-8"))
    tensors = from_safetensors((folder / "probe.safetensors").read_bytes())
    change(document, tensors)
    packed = to_safetensors(tensors)
    document["tensors"] = {"sha256": sha256(packed).hexdigest(), "n_bytes": len(packed)}
    del document["digest"]
    document["digest"] = document_digest(document)
    (folder / "probe.safetensors").write_bytes(packed)
    (folder / "probe.json").write_text(json.dumps(document), "utf-8")


def test_damaged_tasks_are_refused_by_name(probe: DifficultyProbe, tmp_path: Path) -> None:
    def without_counts(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        del tensors["tasks.counts"]

    def without_keys(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        del document["tasks"]

    def long_key(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["tasks"] = {"keys": ["code", "m" * 1000]}

    def other_key(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        document["tasks"] = {"keys": ["code", "mall"]}

    def too_large(document: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
        tensors["tasks.sums"] = tensors["tasks.sums"] + 2**60

    for change, error, message in (
        (without_counts, ArtifactSchemaError, r"tasks\.counts"),
        (without_keys, ArtifactSchemaError, r"tensor .*tasks\."),
        (long_key, ArtifactValueError, "the key of a task must"),
        (other_key, ArtifactDigestError, "must describe the probe it names"),
        (too_large, ArtifactValueError, "as many labels"),
    ):
        folder = tmp_path / change.__name__
        store.save(probe, folder)
        damaged(folder, change)
        with pytest.raises(error, match=message):
            store.load(folder)


def test_offsets_must_be_of_the_probes_models(make_probe: MakeProbe) -> None:
    none = np.zeros((0, 3), np.int64)
    with pytest.raises(DataError, match="2 models"):
        replace(make_probe(), tasks=TaskOffsets((), np.eye(3), np.ones(3), none, none))

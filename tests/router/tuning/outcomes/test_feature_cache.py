"""Tests of the feature cache: whatever its files hold, the features are those of the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from probes.shards.work import ShardWork
from router.tuning.outcomes import feature_cache
from router.tuning.outcomes.feature_cache import FeatureCache
from tests.fakes import FakeEncoder, fake_spec

TEXTS = ["one", "two", "three"]


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_width(path: Path) -> None:
    keys, features = np.zeros((1, 32), np.uint8), np.zeros((1, 3), np.float32)
    digest = np.frombuffer(feature_cache._digest(keys, features), np.uint8)
    save_file({"keys": keys, "features": features, "digest": digest}, path.with_stem("other"))


def of_another_kind(path: Path) -> None:
    save_file({"keys": np.zeros((2, 32), np.float32), "features": np.zeros((2, 3, 3), np.float64)}, path)


def not_finite(path: Path) -> None:
    tensors = feature_cache.load_file(path)
    save_file(tensors | {"features": np.full_like(tensors["features"], np.nan)}, path)


def one_number_changed(path: Path) -> None:
    tensors = feature_cache.load_file(path)
    tensors["features"][0, 0] += 1
    save_file(tensors, path)


def a_file_of_an_older_version(path: Path) -> None:
    tensors = feature_cache.load_file(path)
    save_file({name: tensors[name] for name in ("keys", "features")}, path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED = (torn, empty, of_another_kind, not_finite, one_number_changed)


@pytest.mark.parametrize("spoil", [*SPOILED, a_file_of_an_older_version, a_directory])
def test_files_that_cannot_be_used_are_ignored_and_their_texts_encoded_again(
    spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(feature_cache, "load_encoder", lambda *_: encoder)
    cache = FeatureCache(tmp_path)
    first = cache.features(encoder.spec, TEXTS)
    (shard,) = tmp_path.rglob("*.safetensors")
    assert (cache.features(encoder.spec, TEXTS) == first).all()
    assert len(encoder.encoded) == len(TEXTS)
    spoil(shard)
    assert (cache.features(encoder.spec, TEXTS) == first).all()
    assert len(encoder.encoded) == 2 * len(TEXTS)


def test_a_file_of_another_width_costs_only_its_own_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(feature_cache, "load_encoder", lambda *_: encoder)
    cache = FeatureCache(tmp_path)
    first = cache.features(encoder.spec, TEXTS)
    (shard,) = tmp_path.rglob("*.safetensors")
    of_another_width(shard)
    assert (cache.features(encoder.spec, TEXTS) == first).all()
    assert len(encoder.encoded) == len(TEXTS)
    wide = np.zeros((5, 32), np.uint8), np.zeros((5, 3), np.float32)
    wide[0][:, 0] = range(5)
    digest = np.frombuffer(feature_cache._digest(*wide), np.uint8)
    save_file({"keys": wide[0], "features": wide[1], "digest": digest}, shard.with_stem("most"))
    assert (cache.features(encoder.spec, TEXTS) == first).all()


def test_any_engine_gives_the_same_features_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards:
        """An engine whose shards are finished in the opposite order."""

        def results(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
            compute = work.open(1)
            return ((number, compute(number)) for number in reversed(shards))

    monkeypatch.setattr(feature_cache, "load_encoder", lambda spec, _: FakeEncoder(spec))
    monkeypatch.setattr(feature_cache, "SHARD", 3)
    texts, told = [f"text {n}" for n in range(10)], list[tuple[int, int]]()
    expected = FeatureCache(tmp_path / "one").features(fake_spec(), texts)
    found = FeatureCache(tmp_path / "two", Backwards()).features(
        fake_spec(), texts, on_progress=lambda *at: told.append(at)
    )
    assert (found == expected).all()
    assert told == [(1, 10), (4, 10), (7, 10), (10, 10)]
    assert {path.name for path in (tmp_path / "one").rglob("*.safetensors")} == {
        path.name for path in (tmp_path / "two").rglob("*.safetensors")
    }

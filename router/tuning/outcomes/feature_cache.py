"""Keep features on disk, so that a second run does not encode the same texts again."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from probes.encoders.files import CACHE_HINT, default_cache_dir
from probes.encoders.load import load_encoder
from probes.encoders.spec import Encoder, EncoderSpec, FloatArray, encode_all
from probes.errors import DataError, EncoderMismatchError
from probes.probe import DifficultyProbe
from probes.shards.work import Engine, ShardFunction

log = logging.getLogger(__name__)

#: Texts in each file of the cache. An interruption loses the features of no more texts than this.
SHARD = 1000

Progress = Callable[[int, int], None]


class FeatureCache:
    """Keeps features on disk under the identity of the encoder and the SHA-256 of the text. The cache holds no text.

    Args:
        directory: where the cache is; it is created when needed. None takes `default_cache_dir()`; if there is no such
            directory, nothing is kept.
        engine: what encodes new texts, in shards; None encodes them in this process, with a thread for each core.
    """

    def __init__(self, directory: Path | None = None, engine: Engine | None = None) -> None:
        self._directory = directory or default_cache_dir()
        self._engine = engine

    def features(
        self,
        spec: EncoderSpec,
        texts: Sequence[str],
        *,
        encoder_dir: Path | None = None,
        on_progress: Progress | None = None,
    ) -> FloatArray:
        """Return the features (n, d) of n texts, float32, from the cache or else from the encoder.

        The encoder is loaded only if some text is new.

        `on_progress` is called with (texts encoded, texts to encode). Raises EncoderError as `load_encoder` does.
        """
        keys = [_key(text) for text in texts]
        folder = self._directory / "features" / spec.identity[:32] if self._directory is not None else None
        known = _read_shards(folder) if folder is not None else {}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            if folder is None:
                _say_not_kept("there is no home directory")
            encoder = _load(spec, encoder_dir)
            known = {key: row for key, row in known.items() if len(row) == encoder.n_features}
            new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            work = _EncodingWork(spec, encoder_dir, tuple(new.values()))
            results = (
                _here(work, encoder, on_progress)
                if self._engine is None
                else self._engine.results(work, range(work.n_shards))
            )
            known |= _kept(results, list(new), folder, on_progress if self._engine else None)
        return np.stack([known[key] for key in keys])


def encoder_spec(probe: DifficultyProbe) -> EncoderSpec:
    """Return the encoder that a probe was fitted on. Raises DataError for one fitted on precomputed features."""
    if probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so prompts cannot be judged."
        )
    return EncoderSpec.from_dict(probe.encoder)


def _load(spec: EncoderSpec, directory: Path | None) -> Encoder:
    """Load the encoder of a spec. Raises EncoderMismatchError if this machine computes other features."""
    encoder = load_encoder(spec, directory)
    if encoder.spec.differs_in_rounding_only(spec):
        raise EncoderMismatchError(
            f"features must be those of {spec.model_id} in {spec.precision}; this machine computes "
            f"{encoder.spec.precision}, whose last bits differ. Fit a probe on this machine, or go to one that "
            f"computes {spec.precision}: x86-64 with AVX2, and the package installed where a C compiler is."
        )
    return encoder


@dataclass(frozen=True)
class _EncodingWork:
    """Encodes texts in shards of `SHARD`; the result of a shard is its float32 features, row by row."""

    spec: EncoderSpec
    directory: Path | None
    texts: tuple[str, ...]

    @property
    def n_shards(self) -> int:
        return -(-len(self.texts) // SHARD)

    def open(self, threads: int | None) -> ShardFunction:
        encoder = _load(self.spec, self.directory)
        return lambda number: self.encoded(number, encoder, threads)

    def encoded(
        self, number: int, encoder: Encoder, threads: int | None = None, on_done: Callable[[], None] | None = None
    ) -> bytes:
        texts = self.texts[number * SHARD : (number + 1) * SHARD]
        return encode_all(encoder, texts, workers=threads, on_done=on_done).tobytes()


def _here(work: _EncodingWork, encoder: Encoder, on_progress: Progress | None) -> Iterator[tuple[int, bytes]]:
    """Encode all shards in this process, with the encoder that is loaded already."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, len(work.texts))

    for number in range(work.n_shards):
        yield number, work.encoded(number, encoder, on_done=count)


def _kept(
    results: Iterator[tuple[int, bytes]], keys: Sequence[bytes], folder: Path | None, on_progress: Progress | None
) -> dict[bytes, FloatArray]:
    """Write the features of each shard to the cache when it is encoded; return all of them by key."""
    found: dict[bytes, FloatArray] = {}
    for number, result in results:
        own = keys[number * SHARD : (number + 1) * SHARD]
        features = np.frombuffer(result, dtype=np.float32).reshape(len(own), -1)
        folder = _keep_shard(folder, own, features) if folder is not None else None
        found |= dict(zip(own, features, strict=True))
        if on_progress is not None:
            on_progress(len(found), len(keys))
    return found


def _read_shards(folder: Path) -> dict[bytes, FloatArray]:
    """Return the kept features by key; the texts of a file that cannot be read are encoded again."""
    shards: dict[Path, dict[bytes, FloatArray]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            shards[path] = _read_shard(path)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            log.warning("ignoring unreadable feature cache file %s: %s", path, error)
    widths = Counter(len(row) for shard in shards.values() for row in shard.values())
    known: dict[bytes, FloatArray] = {}
    for path, shard in shards.items():
        if shard and (width := len(next(iter(shard.values())))) != (usual := widths.most_common(1)[0][0]):
            log.warning("ignoring %s, whose features have %d numbers, not %d as most; delete it", path, width, usual)
        else:
            known |= shard
    return known


def _read_shard(path: Path) -> dict[bytes, FloatArray]:
    tensors = load_file(path)
    keys, features, digest = tensors["keys"], tensors["features"], tensors["digest"]
    if digest.tobytes() != _digest(keys, features):
        raise ValueError("its numbers are not those that were written")
    if keys.dtype != np.uint8 or features.dtype != np.float32 or features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError("it must hold keys and finite float32 features, one row each")
    return {bytes(key): row for key, row in zip(keys, features, strict=True)}


def _keep_shard(folder: Path, keys: Sequence[bytes], features: FloatArray) -> Path | None:
    """Write features to the cache; return the folder for the next ones, or None if writing failed."""
    try:
        _write_shard(folder, keys, features)
    except (OSError, SafetensorError) as error:
        _say_not_kept(error)
        return None
    return folder


def _say_not_kept(why: object) -> None:
    log.warning("features are not kept, and are encoded anew the next time; %s: %s", CACHE_HINT, why)


def _write_shard(folder: Path, keys: Sequence[bytes], features: FloatArray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stacked: npt.NDArray[np.uint8] = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
    name = hashlib.sha256(stacked.tobytes()).hexdigest()[:32]
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
    os.close(handle)
    try:
        digest = np.frombuffer(_digest(stacked, features), dtype=np.uint8)
        save_file({"keys": stacked, "features": features, "digest": digest}, temporary)
        Path(temporary).replace(folder / f"{name}.safetensors")
    finally:
        Path(temporary).unlink(missing_ok=True)


def _digest(keys: npt.NDArray[np.uint8], features: FloatArray) -> bytes:
    """Return a digest of the contents of a file, because a disk may change a number and leave the file readable."""
    return hashlib.sha256(np.ascontiguousarray(keys).tobytes() + np.ascontiguousarray(features).tobytes()).digest()


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

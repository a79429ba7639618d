"""Choose samples to label next: draw uniformly from a file of any size, or choose by a rule within such a draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes._checks import Indices
from probes.embeddings.files import EmbeddingFile
from probes.errors import DataError

_BLOCK_BYTES = 16 << 20
#: Herding uses this many principal components, random Fourier features, and pairs that the kernel width is taken from.
_COMPONENTS, _FEATURES, _PAIRS = 50, 1000, 1000


@dataclass(frozen=True)
class RowSample:
    """Holds rows that were drawn uniformly and without replacement from a file.

    Attributes:
        rows: (k,) row numbers in the order of the draw: the first j of them are the draw of j rows with the same seed.
        features: (k, d) their embeddings.
        n_bad: rows of the file that hold NaN or infinity, or are missing; they are never drawn.
    """

    rows: Indices
    features: NDArray[np.float32]
    n_bad: int


def sample_rows(file: EmbeddingFile, count: int, *, seed: int = 0, exclude: ArrayLike = ()) -> RowSample:
    """Draw `count` rows of a file, each equally likely, in one pass and the memory of the drawn rows and one block.

    exclude: row numbers that must not be drawn, such as those that have labels. Fewer rows are
    drawn if there are fewer. Raises DataError if no row can be drawn, and for a count below 1.
    """
    if count < 1:
        raise DataError(f"the number of rows to draw must be at least 1, got {count}")
    excluded = np.unique(np.asarray(exclude, dtype=np.int64))
    rng = np.random.default_rng(seed)
    keys, rows = np.empty(0), np.empty(0, dtype=np.int64)
    features = np.empty((0, file.width), dtype=np.float32)
    first = n_bad = 0
    for block in file.blocks(0, max(1, _BLOCK_BYTES // (4 * file.width))):
        numbers = np.arange(first, first + len(block))
        first += len(block)
        # Every row gets a key, also a bad one: the draw must depend on the seed and the number of the row only.
        key = rng.random(len(block))
        finite = np.isfinite(block).all(axis=1)
        n_bad += int((~finite).sum())
        border = keys.max() if len(keys) == count else 1.0
        wanted = finite & (key < border) & ~np.isin(numbers, excluded)
        if not wanted.any():
            continue
        keys, rows = np.append(keys, key[wanted]), np.append(rows, numbers[wanted])
        features = np.concatenate([features, block[wanted]])
        smallest = np.argsort(keys, kind="stable")[:count]
        keys, rows, features = keys[smallest], rows[smallest], features[smallest]
    if not len(rows):
        raise DataError(
            f"some rows must be there to draw from; of {first:,}, {n_bad:,} hold NaN or infinity or are missing, and "
            f"{len(excluded):,} are excluded"
        )
    return RowSample(rows, features, n_bad)


def herd(features: ArrayLike, n_select: int, *, seed: int = 0) -> Indices:
    """Return the `n_select` samples that represent all of them best, by kernel herding (Chen, Welling, Smola 2010).

    Each step takes the sample that brings the mean of the chosen, in 1,000 random Fourier features of a Gaussian kernel
    on the 50 largest principal components, closest to the mean of all. features: (n, d), finite, standardised here by
    their own mean and spread. The indices are in the order chosen, so the first j are the choice of j samples.
    """
    X = np.asarray(features, dtype=np.float32)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise DataError(f"features must be finite, of shape (n, d), got {X.shape}")
    if not 1 <= n_select <= len(X):
        raise DataError(f"n_select must lie between 1 and the {len(X)} samples there are, got {n_select}")
    rng = np.random.default_rng(seed)
    F = _fourier_features(_principal(X), rng)
    mean, total = F.mean(axis=0), np.zeros(F.shape[1], dtype=np.float32)
    chosen, available = np.empty(n_select, dtype=np.int64), np.ones(len(F), dtype=np.bool_)
    for step in range(n_select):
        score = F @ (mean - total / (step + 1))
        best = int(np.argmax(np.where(available, score, -np.inf)))
        chosen[step], available[best] = best, False
        total += F[best]
    return chosen


def _principal(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return coordinates along the largest principal components of the standardised features."""
    spread = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    _, basis = np.linalg.eigh((Z.T @ Z).astype(np.float64))
    return np.asarray(Z @ basis[:, ::-1][:, :_COMPONENTS].astype(np.float32))


def _fourier_features(Z: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    pairs = Z[rng.integers(0, len(Z), _PAIRS)] - Z[rng.integers(0, len(Z), _PAIRS)]
    # The usual width of the kernel: the median distance of two samples.
    width = float(np.sqrt(np.median((pairs**2).sum(axis=1)))) or 1.0
    directions = rng.normal(size=(Z.shape[1], _FEATURES)) / width
    phases = rng.uniform(0.0, 2.0 * np.pi, _FEATURES)
    return np.cos(Z @ directions.astype(np.float32) + phases.astype(np.float32))

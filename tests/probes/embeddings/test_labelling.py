"""Drawing rows to label: uniform, reproducible, in one pass; and herding, which keeps the whole in the few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.embeddings import labelling
from probes.embeddings.files import EmbeddingFile, open_embeddings
from probes.embeddings.labelling import herd, sample_rows
from probes.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> EmbeddingFile:
    """200 rows whose first number is their row; rows 10 to 19 are bad."""
    X = np.arange(400, dtype=np.float32).reshape(200, 2)
    X[10:20, 1] = np.nan
    np.save(tmp_path / "e.npy", X)
    return open_embeddings(tmp_path / "e.npy")


def test_a_larger_draw_begins_with_the_smaller_one_however_the_file_is_read(
    file: EmbeddingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample_rows(file, 150, seed=5)
    assert whole.n_bad == 10
    assert not set(whole.rows.tolist()) & set(range(10, 20))
    assert (whole.features[:, 0] == 2 * whole.rows).all()
    monkeypatch.setattr(labelling, "_BLOCK_BYTES", 8 * 7)
    for count in (1, 40, 150):
        assert (sample_rows(file, count, seed=5).rows == whole.rows[:count]).all()
    assert (sample_rows(file, 150, seed=6).rows != whole.rows).any()


def test_every_row_is_equally_likely(file: EmbeddingFile) -> None:
    counts = np.zeros(200)
    for seed in range(2000):
        counts[sample_rows(file, 19, seed=seed).rows] += 1
    assert (counts[10:20] == 0).all()
    # 2,000 draws of 19 in 190: 200 each, standard deviation 13.
    others = np.delete(counts, np.arange(10, 20))
    assert others.min() > 200 - 5 * 13.5
    assert others.max() < 200 + 5 * 13.5


def test_excluded_rows_are_not_drawn_and_too_few_rows_are_given_as_they_are(file: EmbeddingFile) -> None:
    found = sample_rows(file, 500, exclude=np.arange(100))
    assert sorted(found.rows.tolist()) == list(range(100, 200))
    with pytest.raises(DataError, match="of 200, 10 hold NaN or infinity or are missing, and 200 are excluded"):
        sample_rows(file, 5, exclude=np.arange(200))
    with pytest.raises(DataError, match="at least 1, got 0"):
        sample_rows(file, 0)


def test_the_herd_keeps_the_mean_of_the_whole_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(800, 6)), rng.normal(size=(200, 6)) + 4])
    error = np.linalg.norm(X[herd(X, 30)].mean(axis=0) - X.mean(axis=0))
    by_chance = [np.linalg.norm(X[rng.choice(1000, 30)].mean(axis=0) - X.mean(axis=0)) for _ in range(200)]
    assert error < np.quantile(by_chance, 0.05)
    chosen = herd(X, 30)
    assert len(set(chosen.tolist())) == 30
    assert (herd(X, 10) == chosen[:10]).all()


def test_a_herd_of_equal_samples_is_a_herd_all_the_same() -> None:
    assert len(set(herd(np.ones((20, 3)), 20).tolist())) == 20
    with pytest.raises(DataError, match="between 1 and the 20"):
        herd(np.ones((20, 3)), 21)
    with pytest.raises(DataError, match="must be finite"):
        herd([[1.0], [np.nan]], 1)


@pytest.mark.parametrize("rows", [50_000, 400_000])
def test_drawing_holds_the_drawn_rows_and_a_block_only(tmp_path: Path, rows: int) -> None:
    import tracemalloc

    path = tmp_path / "large.npy"
    block = np.zeros((10_000, 64), dtype=np.float32)
    with path.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 64)}
        np.lib.format.write_array_header_1_0(out, header)
        for _ in range(rows // 10_000):
            out.write(block.tobytes())
    tracemalloc.start()
    sample_rows(open_embeddings(path), 300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6, f"{peak / 1e6:.0f} MB for a file of {path.stat().st_size / 1e6:.0f} MB"

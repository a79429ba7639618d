"""Embedding files that are damaged, malformed or incomplete: each gets its own error or is listed row by row."""

from __future__ import annotations

import numpy as np
import pytest

from probes.embeddings.files import open_embeddings
from probes.embeddings.scoring import ScoringOptions, score_file
from probes.errors import DataError
from tests.probes.embeddings.written_files import X, pa, pq, total, write


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "parquet:fixed"])
def test_a_truncated_file_is_an_error(tmp_path, kind):
    if kind == "safetensors":
        pytest.importorskip("torch")
    source = write(tmp_path, kind)
    whole = source.read_bytes()
    for keep in (0, 5, len(whole) // 2, len(whole) - 1):
        source.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=source.name):
            score_file(source, tmp_path / "out.parquet", total, scorer_id="t")
        assert not (tmp_path / "out.parquet").exists()


def test_damaged_bytes_in_the_middle_are_an_error(tmp_path):
    for kind in ("npz:deflated", "parquet:fixed"):
        source = write(tmp_path, kind)
        damaged = bytearray(source.read_bytes())
        middle = len(damaged) // 3
        damaged[middle : middle + 40] = b"\xff" * 40
        source.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{source.name} (is damaged|must be)"):
            score_file(source, tmp_path / "out.parquet", total, scorer_id="t")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5, np.float32), r"shape \(rows, width\).*got \(5,\)"),
        (np.zeros((0, 4), np.float32), "at least one of each"),
        (np.zeros((5, 2), np.int64), "floating-point numbers, got int64"),
        (np.asfortranarray(X), "Fortran order"),
    ],
)
def test_arrays_that_are_no_embeddings_are_named(tmp_path, values, message):
    np.save(tmp_path / "embeddings.npy", values)
    with pytest.raises(DataError, match=message):
        open_embeddings(tmp_path / "embeddings.npy")


def test_the_array_is_found_by_name_or_because_there_is_no_other(tmp_path):
    np.savez(tmp_path / "one.npz", vectors=X, labels=np.arange(103))
    assert open_embeddings(tmp_path / "one.npz").rows == 103
    np.savez(tmp_path / "two.npz", text=X, image=X[:5])
    with pytest.raises(DataError, match=r"named 'embedding', it has image, text"):
        open_embeddings(tmp_path / "two.npz")
    assert open_embeddings(tmp_path / "two.npz", "image").rows == 5


def test_lists_that_are_missing_short_or_have_gaps_are_bad_rows(tmp_path):
    lists = [[1.0, 2.0]] * 30 + [[1.0, 2.0, 3.0], None, [1.0, None], []] + [[3.0, 4.0]] * 3
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64())):
        pq.write_table(pa.table({"embedding": pa.array(lists, kind)}), tmp_path / "e.parquet", row_group_size=8)
        out = tmp_path / "out.parquet"
        report = score_file(
            tmp_path / "e.parquet", out, total, scorer_id="t", options=ScoringOptions(part_rows=5, overwrite=True)
        )
        assert report.bad_rows == 4
        scores = pq.read_table(out)["total"].to_numpy()
        assert np.flatnonzero(np.isnan(scores)).tolist() == [30, 31, 32, 33]
        assert scores[34:].tolist() == [7.0, 7.0, 7.0]


def test_the_first_row_may_be_the_odd_one(tmp_path):
    lists = [None, [1.0], [1.0, 2.0], [1.0, 2.0]]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        rows = lists if kind.equals(pa.list_(pa.float32())) else [None, None, *lists[2:]]
        pq.write_table(pa.table({"embedding": pa.array(rows, kind)}), tmp_path / "e.parquet")
        found = open_embeddings(tmp_path / "e.parquet")
        assert found.width == 2
        (block,) = found.blocks(0, 10)
        assert np.isnan(block[:2]).all()
        assert block[2:].tolist() == [[1.0, 2.0]] * 2


@pytest.mark.parametrize("lists", [[None, None], [[], []], [["a"], ["b"]], [[1], [2]]])
def test_columns_without_any_numbers_are_named(tmp_path, lists):
    pq.write_table(
        pa.table({"embedding": pa.array(lists)})
        if lists[0]
        else pa.table({"embedding": pa.array(lists, pa.list_(pa.float32()))}),
        tmp_path / "e.parquet",
    )
    with pytest.raises(DataError, match="must hold"):
        open_embeddings(tmp_path / "e.parquet")


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "parquet:fixed"])
def test_an_array_that_is_asked_for_by_name_must_be_there_though_there_is_only_one(tmp_path, kind):
    if kind == "safetensors":
        pytest.importorskip("torch")
    source = write(tmp_path, kind)
    assert open_embeddings(source).rows == len(X)
    with pytest.raises(DataError, match="WRONG"):
        open_embeddings(source, "WRONG")

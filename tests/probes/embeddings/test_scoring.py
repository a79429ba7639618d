"""Scoring reads every kind of file, continues after any interruption, and never leaves part of an output."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.calibration.sigmoid import Sigmoid
from probes.embeddings.files import open_embeddings
from probes.embeddings.score_work import ShardReader
from probes.embeddings.scoring import ScoringOptions, probe_scorer, read_scores, score_file
from probes.errors import DataError, DimensionError
from probes.probe import DifficultyProbe, ProbeCard
from probes.regression.ridge import RidgeFitter
from probes.shards.processes import LocalProcesses
from probes.shards.work import PlainLoop
from tests.probes.embeddings.written_files import KINDS, X, pa, pq, total, write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part_rows", [7, 50, 1000])
def test_every_kind_of_file_gets_one_score_per_row_in_order(tmp_path, kind, part_rows):
    if kind.startswith("safetensors"):
        pytest.importorskip("torch")
    source = write(tmp_path, kind)
    report = score_file(
        source, tmp_path / "out.parquet", total, scorer_id="t", options=ScoringOptions(part_rows=part_rows)
    )
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["row"].to_pylist() == list(range(103))
    tolerance = {"F16": 1e-2, "BF16": 1e-1}.get(kind.partition(":")[2], 1e-5)
    np.testing.assert_allclose(table["total"], X.sum(axis=1), atol=tolerance)
    assert table["total"].type == pa.float32()
    assert (report.rows, report.resumed_rows, report.columns) == (103, 0, ("row", "total"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, "out.parquet"])


class Interrupted(Exception):  # noqa: N818  (stands for whatever stops a process)
    pass


@pytest.mark.parametrize("kind", ["npy", "npz:deflated", "safetensors", "parquet:fixed", "parquet:list"])
@pytest.mark.parametrize("calls_survived", [0, 1, 5, 9])
def test_an_interrupted_run_leaves_no_output_and_the_next_one_goes_on(tmp_path, kind, calls_survived):
    source, out = write(tmp_path, kind), tmp_path / "out.parquet"
    scored = []

    def dies(features):
        if len(scored) >= calls_survived:
            raise Interrupted
        scored.append(len(features))
        return total(features)

    with pytest.raises(Interrupted):
        score_file(source, out, dies, scorer_id="t", options=ScoringOptions(part_rows=10))
    assert not out.exists()
    finished = len(list(tmp_path.glob("out.parquet.*.partial/part-*.parquet")))
    seen = []

    def counts(features):
        seen.append(len(features))
        return total(features)

    report = score_file(source, out, counts, scorer_id="t", options=ScoringOptions(part_rows=10))
    assert report.resumed_rows == 10 * finished
    assert sum(seen) == 103 - 10 * finished, "finished parts are not scored again"
    np.testing.assert_allclose(pq.read_table(out)["total"], X.sum(axis=1), atol=1e-5)
    assert not list(tmp_path.glob("*.partial"))


def test_a_part_that_was_being_written_counts_as_not_there(tmp_path):
    source, out = write(tmp_path, "npy"), tmp_path / "out.parquet"
    calls = iter(range(100))

    def dies_in_the_third(features):
        if next(calls) == 2:
            raise Interrupted
        return total(features)

    with pytest.raises(Interrupted):
        score_file(source, out, dies_in_the_third, scorer_id="t", options=ScoringOptions(part_rows=10))
    (partial,) = tmp_path.glob("out.parquet.*.partial")
    (partial / "part-000002.parquet.1.unfinished").write_bytes(b"PAR1 half a part")
    (partial / "all.parquet").write_bytes(b"PAR1 half an output")
    score_file(source, out, total, scorer_id="t", options=ScoringOptions(part_rows=10))
    np.testing.assert_allclose(pq.read_table(out)["total"], X.sum(axis=1), atol=1e-5)


def test_another_call_neither_meets_nor_destroys_what_a_stopped_one_left(tmp_path):
    source, out = write(tmp_path, "npy"), tmp_path / "out.parquet"
    calls = iter(range(100))

    def dies_in_the_third(features):
        if next(calls) == 2:
            raise Interrupted
        return total(features)

    with pytest.raises(Interrupted):
        score_file(source, out, dies_in_the_third, scorer_id="one", options=ScoringOptions(part_rows=10))
    (left,) = tmp_path.glob("*.partial")
    report = score_file(
        source, out, lambda x: {"total": -x.sum(axis=1)}, scorer_id="two", options=ScoringOptions(part_rows=10)
    )
    assert (report.resumed_rows, report.leftovers) == (0, (left,))
    np.testing.assert_allclose(pq.read_table(out)["total"], -X.sum(axis=1), atol=1e-5)
    out.unlink()
    assert score_file(source, out, total, scorer_id="one", options=ScoringOptions(part_rows=10)).resumed_rows == 20, (
        "its own work is kept"
    )
    np.save(source, X + 1)
    report = score_file(source, tmp_path / "new.parquet", total, scorer_id="one", options=ScoringOptions(part_rows=10))
    assert report.resumed_rows == 0, "another source is another call"


def test_a_call_that_fails_at_once_leaves_nothing(tmp_path):
    source, out = write(tmp_path, "npy"), tmp_path / "out.parquet"

    def refuses(features):
        raise DimensionError("X must have 7 columns")

    with pytest.raises(DimensionError):
        score_file(source, out, refuses, scorer_id="wrong probe")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    score_file(source, out, total, scorer_id="right probe")


def test_a_part_cut_by_a_crash_is_scored_again(tmp_path):
    source, out = write(tmp_path, "npy"), tmp_path / "out.parquet"
    calls = iter(range(100))

    def dies_in_the_fourth(features):
        if next(calls) == 3:
            raise Interrupted
        return total(features)

    with pytest.raises(Interrupted):
        score_file(source, out, dies_in_the_fourth, scorer_id="t", options=ScoringOptions(part_rows=10))
    (part,) = tmp_path.glob("*.partial/part-000001.parquet")
    part.write_bytes(part.read_bytes()[:100])
    assert score_file(source, out, total, scorer_id="t", options=ScoringOptions(part_rows=10)).resumed_rows == 20
    np.testing.assert_allclose(pq.read_table(out)["total"], X.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize("kind", ["npz:deflated"])
def test_processes_write_the_same_bytes_as_one_process(tmp_path, probe, kind):
    source = write(tmp_path, kind)
    for name, engine in (("one", PlainLoop()), ("two", LocalProcesses(2))):
        options = ScoringOptions(part_rows=30, engine=engine)
        score_file(source, tmp_path / f"{name}.parquet", probe_scorer(probe), scorer_id=probe.identity, options=options)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_blocks_are_the_same_wherever_reading_began(tmp_path):
    """The last bits of a score can depend on the block that it was computed in."""
    file = open_embeddings(write(tmp_path, "parquet:list"))
    in_order, apart = ShardReader(file, 7), [ShardReader(file, 7) for _ in range(4)]
    for number, first in enumerate(range(0, 103, 30)):
        stop = min(first + 30, 103)
        one, other = list(in_order.blocks(first, stop)), list(apart[number].blocks(first, stop))
        assert [block.tolist() for block in one] == [block.tolist() for block in other]
        assert [len(block) for block in one] == [7] * ((stop - first) // 7) + [(stop - first) % 7] * bool(
            (stop - first) % 7
        )
        np.testing.assert_allclose(np.concatenate(one), X[first:stop], atol=1e-6)


def test_an_existing_output_is_never_overwritten(tmp_path):
    (tmp_path / "out.parquet").write_text("precious")
    with pytest.raises(DataError, match="must not exist yet"):
        score_file(write(tmp_path, "npy"), tmp_path / "out.parquet", total, scorer_id="t")
    assert (tmp_path / "out.parquet").read_text() == "precious"
    score_file(
        write(tmp_path, "npy"), tmp_path / "out.parquet", total, scorer_id="t", options=ScoringOptions(overwrite=True)
    )
    assert len(pq.read_table(tmp_path / "out.parquet")) == 103


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_listed_and_all_others_scored(tmp_path, bad):
    broken = X.copy()
    broken[57, 2] = bad
    broken[60:80] = bad  # two parts of nothing else
    out = tmp_path / "out.parquet"
    seen = []

    def with_flag(features):
        seen.append(np.isfinite(features).all())
        return total(features) | {"large": features[:, 0] > 0}

    report = score_file(
        write(tmp_path, "npy", broken), out, with_flag, scorer_id="t", options=ScoringOptions(part_rows=10)
    )
    assert all(seen), "a scorer gets finite rows only"
    assert (report.rows, report.bad_rows) == (103, 21)
    table = pq.read_table(out)
    missing = np.isnan(table["total"].to_numpy())
    assert np.flatnonzero(missing).tolist() == [57, *range(60, 80)]
    assert table["large"].null_count == 21
    np.testing.assert_allclose(table["total"].to_numpy()[~missing], X[~missing].sum(axis=1), atol=1e-5)
    lines = (tmp_path / "out.parquet.bad-rows.csv").read_text().splitlines()
    assert report.bad_rows_file == tmp_path / "out.parquet.bad-rows.csv"
    assert lines[0] == "row,why"
    assert [int(line.split(",")[0]) for line in lines[1:]] == [57, *range(60, 80)]


def test_a_finite_row_whose_score_overflows_is_listed_too(tmp_path, probe):
    broken = X.copy()
    broken[3] = np.float32(3e38)
    report = score_file(
        write(tmp_path, "npy", broken), tmp_path / "out.parquet", probe_scorer(probe), scorer_id=probe.identity
    )
    assert report.bad_rows == 1
    assert "3,the score is not a finite number" in report.bad_rows_file.read_text()
    assert np.isnan(pq.read_table(tmp_path / "out.parquet")["risk_small"].to_numpy()).sum() == 1


def test_numbers_beyond_a_float32_are_listed_without_a_warning(tmp_path, probe):
    np.save(tmp_path / "wide.npy", X.astype(np.float64) * 1e300)
    report = score_file(tmp_path / "wide.npy", tmp_path / "out.parquet", probe_scorer(probe), scorer_id=probe.identity)
    assert report.bad_rows == len(X)


def test_scores_of_the_wrong_shape_are_named(tmp_path):
    with pytest.raises(DimensionError, match=r"scores 'two' must have shape \(103,\), got \(103, 2\)"):
        score_file(write(tmp_path, "npy"), tmp_path / "out.parquet", lambda rows: {"two": rows[:, :2]}, scorer_id="t")


@pytest.fixture
def probe():
    solution = RidgeFitter(6, 2).update(X, np.clip(X[:, :2] / 4 + 0.5, 0, 1)).solve()
    calibrators = tuple(Sigmoid.fit(X[:, k], (X[:, k] > 0).astype(float)) for k in range(2))
    card = ProbeCard(title="test", created="2026-01-01T00:00:00Z")
    return DifficultyProbe(None, "", ("small", "large"), solution.probe, solution.leverage, None, calibrators, card)


def test_a_probe_writes_what_it_predicts_row_by_row(tmp_path, probe):
    score_file(write(tmp_path, "npy"), tmp_path / "out.parquet", probe_scorer(probe), scorer_id=probe.identity)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "loss_small", "loss_large", "risk_small", "risk_large", "leverage"]
    expected = probe.predict(X)
    np.testing.assert_allclose(table["loss_large"], expected.loss[:, 1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["risk_small"], expected.risk[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["leverage"], expected.leverage, rtol=1e-4, atol=1e-6)


def test_a_probe_without_calibration_writes_no_risk(tmp_path, probe):
    plain = replace(probe, calibrators=())
    report = score_file(write(tmp_path, "npy"), tmp_path / "out.parquet", probe_scorer(plain), scorer_id=plain.identity)
    assert report.columns == ("row", "loss_small", "loss_large", "leverage")


def test_embeddings_of_another_width_than_the_probes_are_an_error(tmp_path, probe):
    source = write(tmp_path, "npy", X[:, :4])
    with pytest.raises(DimensionError, match="6 columns"):
        score_file(source, tmp_path / "out.parquet", probe_scorer(probe), scorer_id=probe.identity)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no file of embeddings"):
        open_embeddings(tmp_path / "none.npy")
    (tmp_path / "x.csv").touch()
    with pytest.raises(DataError, match=r"\.npy, \.npz, \.safetensors, \.parquet; got 'x.csv'"):
        open_embeddings(tmp_path / "x.csv")


def test_scores_are_read_back_by_column(tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match="no file of scores"):
        read_scores(out)
    score_file(write(tmp_path, "npy"), out, lambda rows: {"loss": rows[:, 0], "leverage": rows[:, 1]}, scorer_id="t")
    for column, place in ((None, 0), ("loss", 0), ("leverage", 1)):
        rows, values = read_scores(out, column)
        assert rows.tolist() == list(range(103))
        np.testing.assert_array_equal(values, X[:, place].astype(np.float64))
    with pytest.raises(DataError, match="'risk', it has"):
        read_scores(out, "risk")
    out.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="must be a parquet file"):
        read_scores(out)


def test_the_progress_bar_is_drawn_on_request_only(tmp_path, capsys):
    source = write(tmp_path, "npy")
    score_file(source, tmp_path / "a.parquet", total, scorer_id="t", options=ScoringOptions(progress=True))
    assert "scoring embeddings.npy" in capsys.readouterr().err
    score_file(source, tmp_path / "b.parquet", total, scorer_id="t")
    assert capsys.readouterr().err == ""


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from probes.probe import DifficultyProbe, ProbeCard
from probes.regression.ridge import RidgeFitter
from probes.embeddings.score_work import ShardReader
from probes.embeddings.scoring import ScoringOptions, score_file
weights = np.ones(384, np.float32)
options = ScoringOptions(part_rows=100_000)
score_file(sys.argv[1], sys.argv[2], lambda x: {"loss": x @ weights}, scorer_id="m", options=options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_large(path: Path, rows: int) -> None:
    block = np.random.default_rng(0).normal(size=(10_000, 384)).astype(np.float32)
    if path.suffix == ".npy":
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 384)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(rows // 10_000):
                file.write(block.tobytes())
        return
    column = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), 384)
    batch = pa.RecordBatch.from_arrays([column], ["embedding"])
    with pq.ParquetWriter(path, batch.schema, compression="none", use_dictionary=False) as writer:
        # One row group for the whole file: the worst case for a reader's memory.
        writer.write_table(pa.Table.from_batches([batch] * (rows // 10_000)), row_group_size=rows)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    peaks = []
    for rows in (50_000, 400_000):  # 77 MB and 614 MB
        source = tmp_path / f"e{rows}{ending}"
        write_large(source, rows)
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(MEASURE),
            str(source),
            str(tmp_path / f"{rows}.parquet"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        source.unlink()
    assert peaks[1] < peaks[0] + 100, f"peak MiB at 77 MB and at 614 MB: {peaks}"
    assert peaks[1] < 500

"""Score embedding files of any size with a probe, in constant memory and resumably, into a parquet file."""

from __future__ import annotations

import csv
import glob
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.bounded.parquet import open_parquet, read_parquet
from probes.bounded.text import did_you_mean, path_fault
from probes.digests import json_digest
from probes.embeddings.score_work import REASON, EmbeddingSource, FileSource, Scorer, ScoringWork
from probes.errors import DataError
from probes.probe import DifficultyProbe
from probes.progress import counting_bar
from probes.shards.checkpoint import FolderCheckpoint
from probes.shards.work import Engine, PlainLoop, run_shards


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Says how `score_file` reads, splits and writes; raises DataError for parts of less than one row.

    Attributes:
        array: the array or column to read, needed only if the file holds several.
        part_rows: rows of a part, 1 or more. An interrupted run loses at most the parts that were being scored.
        engine: what scores the parts. The output is the same, byte for byte, with every engine, if BLAS has one thread
            (OMP_NUM_THREADS=1), as it has in workers; otherwise the last bits of a score may differ.
        progress: whether to draw a progress bar; None draws one on a terminal.
        overwrite: whether an output that exists is replaced.
    """

    array: str | None = None
    part_rows: int = 100_000
    engine: Engine = field(default_factory=PlainLoop)
    progress: bool | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.part_rows < 1:
            raise DataError(f"part_rows must be at least 1, got {self.part_rows}")


@dataclass(frozen=True)
class ScoringReport:
    """Reports what `score_file` did.

    Attributes:
        rows: number of rows in the output. resumed_rows: how many of them an earlier run of the same call scored.
        columns: names of the columns written.
        bad_rows: number of rows without a score (NaN). bad_rows_file: the list of them, or None if there are none.
        leftovers: folders of unfinished work that other calls left for the same output; nothing in them was used.
    """

    rows: int
    resumed_rows: int
    columns: tuple[str, ...]
    bad_rows: int = 0
    bad_rows_file: Path | None = None
    leftovers: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Job:
    """Identifies a run: an unfinished output is continued only by a run that has all of this in common."""

    source: str
    source_bytes: int
    source_modified_ns: int
    array: str | None
    rows: int
    width: int
    scorer: str
    part_rows: int

    def folder(self, out: Path) -> Path:
        """Return the folder of the finished parts, beside the output and named by a digest of this job."""
        return out.with_name(f"{out.name}.{json_digest(asdict(self))[:12]}.partial")


@dataclass(frozen=True)
class _ProbeScorer:
    probe: DifficultyProbe

    def __call__(self, features: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        probe = self.probe
        loss = probe.linear.predict(features)
        # The one target of a probe of pairs is called `loss` itself.
        names = ("loss" if model == "loss" else f"loss_{model}" for model in probe.models)
        columns = {name: loss[:, k] for k, name in enumerate(names)}
        # A probe of nats or squared errors has no calibration, so it has no risks.
        for k, calibrator in enumerate(probe.calibrators):
            # Huge but finite embeddings overflow, and no calibration map accepts an infinite loss.
            finite = np.isfinite(loss[:, k])
            risk = np.full(len(loss), np.nan)
            risk[finite] = calibrator.predict(loss[finite, k].astype(np.float64))
            columns[f"risk_{probe.models[k]}"] = risk
        return columns | {"leverage": probe.leverage.score(features)}


def probe_scorer(probe: DifficultyProbe) -> Scorer:
    """Return the scorer of a probe: `loss_<model>` per model or `loss`, `risk_<model>` if calibrated, and `leverage`.

    It computes whole blocks at once, so the last bit of a score may differ from `probe.predict`, which goes row by row.
    """
    return _ProbeScorer(probe)


def score_file(
    source: str | Path | EmbeddingSource,
    out: str | Path,
    scorer: Scorer,
    *,
    scorer_id: str,
    options: ScoringOptions | None = None,
) -> ScoringReport:
    """Score every row of `source` (.npy, .npz, .safetensors, .parquet) into the parquet file `out`.

    `source` may also be another source of embeddings, such as a file of prompts with an encoder. `scorer` maps
    (b, width) finite float32 features to named columns (b,); `scorer_id` (a probe's digest) tells scorers apart.
    Engines with processes need a scorer that is defined at the top of a module. The output has the column `row`
    (0-based, int64) and the scorer's columns, floats as float32.

    A row that holds NaN or infinity, is missing or has another width, or whose score is not a finite number, gets NaN
    (or null) in every column but `row`. It is counted in the report, and `<out>.bad-rows.csv` lists the rows with
    the reason for each.

    `out` appears in one step when everything is scored, never before. Until then finished parts lie in a folder beside
    it that is named by a digest of source, scorer and options. The same call goes on with the parts that are missing,
    on any engine; another call does not use them. A call that fails before its first part is finished leaves nothing.
    Raises DataError if `out` exists, unless `options.overwrite`, and for a file that cannot be read.
    """
    out, options = Path(out), options or ScoringOptions()
    if out.exists() and not options.overwrite:
        raise DataError(f"the output {out} must not exist yet; remove it, have it replaced, or choose another name")
    if isinstance(source, str | Path):
        source = FileSource(Path(source), options.array)
    embeddings = source.open()
    job = _job_of(source, embeddings.rows, embeddings.width, scorer_id, options)
    work = ScoringWork(source, scorer, embeddings.rows, options.part_rows)
    resumed, columns, bad = _score_all(work, job, out, options)
    leftovers = tuple(sorted(out.parent.glob(f"{glob.escape(out.name)}.????????????.partial")))
    return ScoringReport(embeddings.rows, resumed, columns, bad, bad_rows_file(out) if bad else None, leftovers)


def _score_all(work: ScoringWork, job: _Job, out: Path, options: ScoringOptions) -> tuple[int, tuple[str, ...], int]:
    """Score all parts that are not finished and merge them; return (rows already scored, columns, bad rows)."""
    partial = job.folder(out)
    partial.mkdir(parents=True, exist_ok=True)
    parts = FolderCheckpoint(partial, work.n_shards, ".parquet")
    try:
        resumed = sum(map(work.rows_of, parts.finished))
        with counting_bar(f"scoring {job.source}", work.rows, options.progress, resumed) as advance:
            run_shards(work, parts, options.engine, lambda number: advance(work.rows_of(number)))
        columns, bad = _merge([parts.path(number) for number in range(work.n_shards)], partial, out)
    except BaseException:
        # An empty folder would only be litter; one with a finished part is what the next run goes on from.
        if not parts.finished:
            shutil.rmtree(partial)
        raise
    shutil.rmtree(partial)
    return resumed, columns, bad


def _job_of(source: EmbeddingSource, rows: int, width: int, scorer_id: str, options: ScoringOptions) -> _Job:
    state = source.path.stat()
    return _Job(
        source.path.name,
        state.st_size,
        state.st_mtime_ns,
        source.settings,
        rows,
        width,
        scorer_id,
        options.part_rows,
    )


def bad_rows_file(out: Path) -> Path:
    """Return the path of the file that lists the rows without a score."""
    return out.with_name(f"{out.name}.bad-rows.csv")


def read_scores(path: str | Path, column: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return row numbers (n,) and one column of scores (n,) of a file that `score_file` wrote.

    `column` may be None if the file has a single `loss...` column. Raises DataError for a missing
    file, a file of another kind, or a column that is not there.
    """
    source = Path(path)
    if (fault := path_fault(source)) is not None:
        raise DataError(f"there is no file of scores at {source}: it {fault}; a run that was interrupted leaves none")
    with open_parquet(source) as file:
        names = file.schema_arrow.names
    losses = [name for name in names if name.startswith("loss")]
    chosen = losses[0] if column is None and len(losses) == 1 else column
    if "row" in names and chosen is None and losses:
        raise DataError(f"{source.name} has several columns of losses; name one, as with --column: {', '.join(losses)}")
    if "row" not in names or chosen not in names:
        needed = f"{chosen!r}" if chosen else "a column of losses"
        there = f"it has {', '.join(names) or 'none'}.{did_you_mean(chosen or '', names)}"
        raise DataError(f"{source.name} must have the column 'row' and {needed}, {there}")
    table = read_parquet(source, ["row", str(chosen)])
    if gaps := table["row"].null_count + table[chosen].null_count:
        raise DataError(f"columns 'row' and {chosen!r} of {source.name} must have no gaps, {gaps:,} values are missing")
    try:
        return table["row"].to_numpy().astype(np.int64), table[chosen].to_numpy().astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"columns 'row' and {chosen!r} of {source.name} must hold numbers") from error


def _merge(parts: list[Path], partial: Path, out: Path) -> tuple[tuple[str, ...], int]:
    """Join all parts as row groups of one file; return its columns and the number of rows without a score."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(parts[0])
    schema = schema.remove(schema.get_field_index(REASON))
    unfinished, listed = partial / "all.parquet", partial / "bad-rows.csv"
    bad = 0
    with pq.ParquetWriter(unfinished, schema) as writer, listed.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("row", "why"))
        for part in parts:
            table = pq.read_table(part)
            without = table.filter(table[REASON].is_valid())
            lines.writerows(zip(without["row"].to_pylist(), without[REASON].to_pylist(), strict=True))
            bad += len(without)
            writer.write_table(table.drop_columns([REASON]))
    if bad:
        listed.replace(bad_rows_file(out))
    else:
        bad_rows_file(out).unlink(missing_ok=True)
    unfinished.replace(out)
    return tuple(schema.names), bad

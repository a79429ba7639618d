"""Score embedding files of any size with a probe, in constant memory and resumably, into a parquet file."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.bounded.parquet import open_parquet, read_parquet
from probes.bounded.text import path_fault
from probes.embeddings.files import EmbeddingFile, open_embeddings
from probes.errors import DataError, DimensionError
from probes.probe import DifficultyProbe

Scorer = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
_BLOCK_BYTES = 16 << 20
#: The column of a part that says why a row has no score; it is not in the output. Its name is on disk: keep it.
_REASON = "_why"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Says how `score_file` reads, splits and writes; raises DataError for parts of less than one row.

    Attributes:
        array: the array or column to read, needed only if the file holds several.
        part_rows: rows of a part, 1 or more. An interrupted run loses at most the part that it was in.
        progress: whether to draw a progress bar; None draws one on a terminal.
        overwrite: whether an output that exists is replaced.
    """

    array: str | None = None
    part_rows: int = 1_000_000
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
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return out.with_name(f"{out.name}.{digest[:12]}.partial")


def probe_scorer(probe: DifficultyProbe) -> Scorer:
    """Return the scorer of a probe: it gives `loss_<model>` per model, `risk_<model>` if calibrated, and `leverage`.

    It computes whole blocks at once, so the last bit of a score may differ from `probe.predict`, which goes row by row.
    """

    def score(features: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        loss = probe.linear.predict(features)
        columns = {f"loss_{model}": loss[:, k] for k, model in enumerate(probe.models)}
        # A probe of nats or squared errors has no calibration, so it has no risks.
        for k, calibrator in enumerate(probe.calibrators):
            # Huge but finite embeddings overflow, and no calibration map accepts an infinite loss.
            finite = np.isfinite(loss[:, k])
            risk = np.full(len(loss), np.nan)
            risk[finite] = calibrator.predict(loss[finite, k].astype(np.float64))
            columns[f"risk_{probe.models[k]}"] = risk
        return columns | {"leverage": probe.leverage.score(features)}

    return score


def score_file(
    source: str | Path,
    out: str | Path,
    scorer: Scorer,
    *,
    scorer_id: str,
    options: ScoringOptions | None = None,
) -> ScoringReport:
    """Score every row of `source` (.npy, .npz, .safetensors, .parquet) into the parquet file `out`.

    `scorer` maps (b, width) finite float32 features to named columns (b,); `scorer_id` (a probe's digest) tells
    scorers apart. The output has the column `row` (0-based, int64) and the scorer's columns, floats as
    float32.

    A row that holds NaN or infinity, is missing or has another width, or whose score is not a finite number, gets NaN
    (or null) in every column but `row`. It is counted in the report, and `<out>.bad-rows.csv` lists the rows with
    the reason for each.

    `out` appears in one step when everything is scored, never before. Until then finished parts lie in a folder beside
    it that is named by a digest of source, scorer and options. The same call goes on after the last finished part;
    another call does not use them. A call that fails before its first part is finished leaves nothing.
    Raises DataError if `out` exists, unless `options.overwrite`, and for a file that cannot be read.
    """
    source, out, options = Path(source), Path(out), options or ScoringOptions()
    if out.exists() and not options.overwrite:
        raise DataError(f"the output {out} must not exist yet; remove it, have it replaced, or choose another name")
    embeddings = open_embeddings(source, options.array)
    job = _job_of(source, embeddings, scorer_id, options)
    done, columns, bad = _score_all(embeddings, scorer, job, out, options.progress)
    leftovers = tuple(sorted(out.parent.glob(f"{glob.escape(out.name)}.????????????.partial")))
    listed = bad_rows_file(out) if bad else None
    return ScoringReport(
        embeddings.rows, min(done * options.part_rows, embeddings.rows), columns, bad, listed, leftovers
    )


def _score_all(
    embeddings: EmbeddingFile, scorer: Scorer, job: _Job, out: Path, progress: bool | None
) -> tuple[int, tuple[str, ...], int]:
    """Score all parts that are not finished and merge them; return (parts already finished, columns, bad rows)."""
    partial = job.folder(out)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        done = _finished_parts(partial, job)
        with _bar(job.rows, min(done * job.part_rows, job.rows), f"scoring {job.source}", progress) as advance:
            _write_parts(embeddings, scorer, partial, job, done, advance)
        columns, bad = _merge(partial, out, job)
    except BaseException:
        # An empty folder would only be litter; one with a finished part is what the next run goes on from.
        if not _part(partial, 0).exists():
            shutil.rmtree(partial)
        raise
    shutil.rmtree(partial)
    return done, columns, bad


def _job_of(source: Path, embeddings: EmbeddingFile, scorer_id: str, options: ScoringOptions) -> _Job:
    state = source.stat()
    return _Job(
        source.name,
        state.st_size,
        state.st_mtime_ns,
        options.array,
        embeddings.rows,
        embeddings.width,
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
        raise DataError(f"{source.name} must have the column 'row' and {needed}, it has {', '.join(names) or 'none'}")
    table = read_parquet(source, ["row", str(chosen)])
    if gaps := table["row"].null_count + table[chosen].null_count:
        raise DataError(f"columns 'row' and {chosen!r} of {source.name} must have no gaps, {gaps:,} values are missing")
    try:
        return table["row"].to_numpy().astype(np.int64), table[chosen].to_numpy().astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"columns 'row' and {chosen!r} of {source.name} must hold numbers") from error


def _part(partial: Path, number: int) -> Path:
    return partial / f"part-{number:06d}.parquet"


def _finished_parts(partial: Path, job: _Job) -> int:
    """Return how many parts, counted from the first, exist and are complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    while done * job.part_rows < job.rows:
        expected = min(job.part_rows, job.rows - done * job.part_rows)
        try:
            if pq.read_metadata(_part(partial, done)).num_rows != expected:
                break
        except (OSError, pa.ArrowException):
            # The part is missing, or a crash cut it short: it is scored again.
            break
        done += 1
    return done


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and rename the result, so that the target is whole or absent."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    write(unfinished)
    unfinished.replace(target)


def _write_parts(
    embeddings: EmbeddingFile,
    scorer: Scorer,
    partial: Path,
    job: _Job,
    done: int,
    advance: Callable[[int], None],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    block_rows = max(1, min(job.part_rows, _BLOCK_BYTES // (4 * job.width)))
    row, number, waiting = done * job.part_rows, done, []
    for block in embeddings.blocks(row, block_rows) if row < job.rows else ():
        end_of_part = min((number + 1) * job.part_rows, job.rows)
        # A block may reach over the end of its part.
        for piece in (block[: end_of_part - row], block[end_of_part - row :]):
            if not len(piece):
                continue
            waiting.append(_score(piece, row, scorer))
            row += len(piece)
            advance(len(piece))
            if row == min((number + 1) * job.part_rows, job.rows):
                table = pa.table({key: pa.concat_arrays([part[key] for part in waiting]) for key in waiting[0]})
                _replace(_part(partial, number), lambda path, table=table: pq.write_table(table, path))  # type: ignore[misc]
                number, waiting = number + 1, []


def _score(features: NDArray[np.float32], first: int, scorer: Scorer) -> dict[str, Any]:
    """Return the columns of one piece as arrow arrays; `_REASON` is null for the rows that have a score."""
    import pyarrow as pa

    finite = np.isfinite(features).all(axis=1)
    good = features if finite.all() else features[finite]
    columns: dict[str, NDArray[Any]] = {}
    scored = np.ones(len(good), dtype=bool)
    # A finite row may still overflow; its score is then not finite, which is reported below.
    with np.errstate(over="ignore", invalid="ignore"):
        # If no row is good, a row of zeros still shows which columns the scorer gives.
        found = scorer(good) if len(good) else {k: v[:0] for k, v in scorer(np.zeros_like(features[:1])).items()}
    for name, values in found.items():
        if np.shape(values) != (len(good),):
            raise DimensionError(f"scores {name!r} must have shape ({len(good)},), got {np.shape(values)}")
        with np.errstate(over="ignore"):
            columns[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
        if values.dtype.kind == "f":
            scored &= np.isfinite(columns[name])
    why = np.full(len(features), None, dtype=object)
    why[~finite] = "the embedding is missing, of another width, or holds NaN or infinity"
    why[np.flatnonzero(finite)[~scored]] = "the score is not a finite number"
    place = np.full(len(features), -1)
    place[np.flatnonzero(finite)[scored]] = np.flatnonzero(scored)
    table: dict[str, Any] = {"row": pa.array(np.arange(first, first + len(features)))}
    table |= {name: _spread(values, place) for name, values in columns.items()}
    return table | {_REASON: pa.array(why, pa.string())}


def _spread(values: NDArray[Any], place: NDArray[np.int64]) -> Any:
    """Return an arrow array of values[place], with NaN (or null if the values are no floats) at places of -1."""
    import pyarrow as pa

    absent = place < 0
    if not absent.any():
        return pa.array(values)
    if values.dtype.kind == "f":
        return pa.array(np.append(values, np.float32(np.nan))[place])
    return pa.array(values).take(pa.array(place, mask=absent))


def _merge(partial: Path, out: Path, job: _Job) -> tuple[tuple[str, ...], int]:
    """Join all parts as row groups of one file; return its columns and the number of rows without a score."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(_part(partial, 0))
    schema = schema.remove(schema.get_field_index(_REASON))
    unfinished, listed = partial / "all.parquet", partial / "bad-rows.csv"
    bad = 0
    with pq.ParquetWriter(unfinished, schema) as writer, listed.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("row", "why"))
        for number in range(-(-job.rows // job.part_rows)):
            table = pq.read_table(_part(partial, number))
            without = table.filter(table[_REASON].is_valid())
            lines.writerows(zip(without["row"].to_pylist(), without[_REASON].to_pylist(), strict=True))
            bad += len(without)
            writer.write_table(table.drop_columns([_REASON]))
    if bad:
        listed.replace(bad_rows_file(out))
    else:
        bad_rows_file(out).unlink(missing_ok=True)
    unfinished.replace(out)
    return tuple(schema.names), bad


@contextmanager
def _bar(total: int, done: int, label: str, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """Return a progress bar on stderr; `progress` None draws it only if stderr is a terminal."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda rows: bar.advance(task, rows)

"""Score embedding files of any size with a probe: constant memory, resumable, parquet out."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.embeddings.files import EmbeddingFile, open_embeddings
from probes.errors import DataError, DimensionError
from probes.probe import DifficultyProbe

Scorer = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class ScoringReport:
    """What was done: rows in the output, of these scored by an earlier run, and the columns written."""

    rows: int
    resumed_rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """What a half-done output must have in common with the run that continues it."""

    source: str
    source_bytes: int
    source_modified_ns: int
    array: str
    rows: int
    width: int
    scorer: str
    part_rows: int


def probe_scorer(probe: DifficultyProbe) -> Scorer:
    """What to write for a probe: `loss_<model>` per model, `risk_<model>` where calibrated, and `leverage`.

    Whole blocks at once, so the last bit of a score may differ from `probe.predict`, which goes row by row.
    """

    def score(features: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        loss = probe.linear.predict(features)
        columns = {f"loss_{model}": loss[:, k] for k, model in enumerate(probe.models)}
        # A probe of nats or squared errors has no calibration, hence no risks.
        for k, calibrator in enumerate(probe.calibrators):
            columns[f"risk_{probe.models[k]}"] = calibrator.predict(loss[:, k].astype(np.float64))
        return columns | {"leverage": probe.leverage.score(features)}

    return score


def score_file(
    source: str | Path,
    out: str | Path,
    scorer: Scorer,
    *,
    scorer_id: str,
    array: str = "embedding",
    part_rows: int = 1_000_000,
    progress: bool | None = None,
) -> ScoringReport:
    """Score every row of `source` (.npy, .npz, .safetensors, .parquet) into the parquet file `out`.

    `scorer` maps (b, width) float32 features to named columns (b,); `scorer_id` (a probe's digest) tells
    scorers apart. The output has the column `row` (0-based, int64) and the scorer's columns, floats as
    float32.

    `out` appears in one step when everything is scored, never before. Until then finished parts of
    `part_rows` rows lie in `<out>.partial/`; a later call with the same source and scorer goes on after the
    last finished part. Raises DataError where `out` exists, where a half-done output belongs to another job,
    and for rows that hold NaN or infinity (naming the first).
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise DataError(f"the output {out} must not exist yet; remove it or choose another name")
    if part_rows < 1:
        raise DataError(f"part_rows must be at least 1, got {part_rows}")
    embeddings = open_embeddings(source, array)
    state = source.stat()
    job = _Job(
        source.name,
        state.st_size,
        state.st_mtime_ns,
        array,
        embeddings.rows,
        embeddings.width,
        scorer_id,
        part_rows,
    )
    partial = out.with_name(out.name + ".partial")
    done = _resume(partial, job)
    with _bar(embeddings.rows, done * part_rows, f"scoring {source.name}", progress) as advance:
        _write_parts(embeddings, scorer, partial, job, done, advance)
    columns = _merge(partial, out, -(-embeddings.rows // part_rows))
    shutil.rmtree(partial)
    return ScoringReport(embeddings.rows, min(done * part_rows, embeddings.rows), columns)


def read_scores(path: str | Path, column: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows (n,) and one column of scores (n,) of a file that `score_file` wrote; input of
    `probes.embeddings.selection`.

    `column` may be left out where the file has a single `loss...` column. Raises DataError for a missing
    file, a file of another kind, or a column that is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = Path(path)
    if not source.is_file():
        raise DataError(f"there is no file of scores at {source}; a run that was interrupted leaves none")
    try:
        names = pq.read_schema(source).names
        losses = [name for name in names if name.startswith("loss")]
        chosen = losses[0] if column is None and len(losses) == 1 else column
        if "row" not in names or chosen not in names:
            raise DataError(f"{source.name} must have the columns 'row' and {chosen!r}, it has {names}; name one")
        table = pq.read_table(source, columns=["row", chosen])
    except pa.ArrowInvalid as error:
        raise DataError(f"{source.name} must be a parquet file of scores: {error}") from error
    return table["row"].to_numpy(), table[chosen].to_numpy().astype(np.float64)


def _part(partial: Path, number: int) -> Path:
    return partial / f"part-{number:06d}.parquet"


def _resume(partial: Path, job: _Job) -> int:
    """Number of finished parts; makes the folder with the job's description where there is none."""
    description = partial / "job.json"
    if description.exists():
        earlier = json.loads(description.read_text())
        if earlier != asdict(job):
            different = sorted(key for key, value in asdict(job).items() if earlier.get(key) != value)
            raise DataError(
                f"{partial} must belong to the same job to be continued, but {', '.join(different)} changed; "
                "remove it to start anew"
            )
    else:
        partial.mkdir(parents=True, exist_ok=True)
        _replace(description, lambda path: path.write_text(json.dumps(asdict(job), indent=1)))
    done = 0
    while _part(partial, done).exists():
        done += 1
    return done


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and rename, so that the target is whole or absent."""
    unfinished = target.with_name(target.name + ".unfinished")
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
                table = pa.table({key: np.concatenate([part[key] for part in waiting]) for key in waiting[0]})
                _replace(_part(partial, number), lambda path, table=table: pq.write_table(table, path))  # type: ignore[misc]
                number, waiting = number + 1, []


def _score(features: NDArray[np.float32], first: int, scorer: Scorer) -> dict[str, NDArray[Any]]:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise DataError(
            f"embeddings must be finite, row {first + int(np.argmin(finite))} holds NaN or infinity; "
            "leave it out of the file and run again, finished parts are kept"
        )
    columns: dict[str, NDArray[Any]] = {"row": np.arange(first, first + len(features))}
    for name, values in scorer(features).items():
        if np.shape(values) != (len(features),):
            raise DimensionError(f"scores {name!r} must have shape ({len(features)},), got {np.shape(values)}")
        columns[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
    return columns


def _merge(partial: Path, out: Path, parts: int) -> tuple[str, ...]:
    """All parts as row groups of one file, renamed into place last."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(_part(partial, 0))

    unfinished = partial / "all.parquet"
    with pq.ParquetWriter(unfinished, schema) as writer:
        for number in range(parts):
            writer.write_table(pq.read_table(_part(partial, number)))
    unfinished.replace(out)
    return tuple(schema.names)


@contextmanager
def _bar(total: int, done: int, label: str, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; `progress` None draws it only where stderr is a terminal."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda rows: bar.advance(task, rows)

"""`elle` on embeddings: fit a probe to (embedding, loss) pairs, score files of any size, select by score."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from probes.embeddings import selection
from probes.errors import DataError
from router.cli.common import INCOMPLETE, PATH, output

_OUT = output("Parquet file to write.")
_COLUMN = click.option("--column", help="Column of the scores; the only loss column unless set.")
_COUNT = click.option("--count", required=True, type=click.IntRange(1), help="How many to select.")


@click.command("fit-pairs")
@click.argument("pairs", type=PATH)
@output("Folder to write the probe to.", folder=True)
@click.option("--name", help="Name of the probe; the folder's unless set.")
def fit_pairs(pairs: Path, out: Path, name: str | None) -> None:
    """Fit a probe to PAIRS of embedding and loss (npz, parquet, safetensors), for any model of any modality."""
    from probes.artifacts import store as artifact
    from probes.losses.fitting import fit_loss_probe
    from probes.losses.precomputed import read_pairs
    from probes.probe import DataSource

    found = read_pairs(pairs)
    with pairs.open("rb") as file:
        source = DataSource(pairs.name, hashlib.file_digest(file, "sha256").hexdigest(), len(found))
    probe, r = fit_loss_probe(found, name or out.resolve().name, source=source)
    artifact.save(probe, out)
    click.echo(f"r = {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] on pairs left out (5 folds); wrote {out}.")


@click.command()
@click.argument("embeddings", type=PATH)
@click.option("--probe", "probe_dir", required=True, type=PATH, help="Folder of the probe.")
@_OUT
@click.option("--array", default="embedding", show_default=True, help="Name of the array or column in the file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a line.")
def score(embeddings: Path, probe_dir: Path, out: Path, array: str, as_json: bool) -> None:
    """Score every row of EMBEDDINGS (npy, npz, parquet, safetensors) into parquet, in constant memory.

    An interrupted run is continued by the same command. Rows that cannot be scored get NaN; they are counted and listed
    in OUT.bad-rows.csv, and the exit status is 3.
    """
    from probes.artifacts import store as artifact
    from probes.embeddings.scoring import probe_scorer, score_file

    probe = artifact.load(probe_dir)
    report = score_file(embeddings, out, probe_scorer(probe), scorer_id=probe.identity, array=array, overwrite=True)
    if as_json:
        found = {"rows": report.rows, "resumed_rows": report.resumed_rows, "columns": report.columns}
        listed = None if report.bad_rows_file is None else str(report.bad_rows_file)
        click.echo(json.dumps(found | {"bad_rows": report.bad_rows, "bad_rows_file": listed}))
    else:
        resumed = f", {report.resumed_rows:,} of them by an earlier run" if report.resumed_rows else ""
        click.echo(f"{report.rows:,} rows{resumed}; wrote {out} with {', '.join(report.columns)}.")
    for folder in report.leftovers:
        click.echo(f"note: {folder} holds unfinished work of another call; remove it if it is not needed.", err=True)
    if report.bad_rows:
        click.echo(
            f"{report.bad_rows:,} of the rows have no score; {report.bad_rows_file} lists them with the reason.",
            err=True,
        )
        raise SystemExit(INCOMPLETE)


@click.group()
def select() -> None:
    """Choose rows by their scores. Each verb writes a parquet file with the column `row`, and the scores chosen by."""


@select.command()
@click.argument("scores", type=PATH)
@click.option("--drop-easiest", default=0.0, type=click.FloatRange(0, 1, max_open=True), help="Share to drop.")
@click.option("--drop-hardest", default=0.0, type=click.FloatRange(0, 1, max_open=True), help="Share to drop.")
@_COLUMN
@_OUT
def keep(scores: Path, drop_easiest: float, drop_hardest: float, column: str | None, out: Path) -> None:
    """Curation: drop the easiest and the hardest of SCORES by quantile."""
    rows, loss = _read(scores, column)
    mask = selection.keep_between(loss, drop_easiest=drop_easiest, drop_hardest=drop_hardest)
    _write(out, row=rows[mask], score=loss[mask])


@select.command()
@click.argument("scores", type=PATH)
@_COUNT
@click.option("--strata", default=10, show_default=True, type=click.IntRange(1), help="Classes of difficulty.")
@click.option("--seed", default=0, show_default=True)
@_COLUMN
@_OUT
def stratified(scores: Path, count: int, strata: int, seed: int, column: str | None, out: Path) -> None:
    """A sample of SCORES that shows every difficulty equally often."""
    rows, loss = _read(scores, column)
    chosen = selection.stratified(loss, count, strata=strata, seed=seed)
    _write(out, row=rows[chosen], score=loss[chosen])


@select.command()
@click.argument("scores", type=PATH)
@click.option("--deviations", type=float, help="Flag above this many robust standard deviations; 3.5 is customary.")
@click.option("--share", type=click.FloatRange(0, 1), help="Flag this share.")
@_COLUMN
@_OUT
def suspicious(scores: Path, deviations: float | None, share: float | None, column: str | None, out: Path) -> None:
    """Quality filter: the rows of SCORES whose predicted loss is unusually high."""
    rows, loss = _read(scores, column)
    mask = selection.suspicious(loss, deviations=deviations, share=share)
    _write(out, row=rows[mask], score=loss[mask])


@select.command()
@click.argument("embeddings", type=PATH)
@_COUNT
@click.option("--gain", "gains", type=PATH, help="Scores that say what a better prediction of each row is worth.")
@click.option("--labelled", type=PATH, help="Embeddings that have labels already.")
@click.option("--array", default="embedding", show_default=True, help="Name of the array or column in the files.")
@_COLUMN
@_OUT
def label(
    embeddings: Path, count: int, gains: Path | None, labelled: Path | None, array: str, column: str | None, out: Path
) -> None:
    """Active learning: the rows of EMBEDDINGS worth labelling next, by gain, leverage and diversity, best first."""
    gain = None if gains is None else np.clip(_read(gains, column)[1], 0.0, None)
    known = None if labelled is None else _embeddings(labelled, array)
    chosen = selection.next_to_label(_embeddings(embeddings, array), count, gain=gain, labelled=known)
    _write(out, row=chosen, rank=np.arange(len(chosen)))


@select.command()
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option("--deviations", default=3.5, show_default=True, type=float, help="Flag beyond these.")
@click.option("--either-way", is_flag=True, help="Flag falls as well as rises.")
@_COLUMN
@_OUT
def change(before: Path, after: Path, deviations: float, either_way: bool, column: str | None, out: Path) -> None:
    """Change between two dates (Delta-ELLE): rows whose predicted loss rose unusually from BEFORE to AFTER."""
    rows, first = _read(before, column)
    later_rows, second = _read(after, column)
    if not np.array_equal(rows, later_rows):
        raise DataError(f"{before} and {after} must score the same rows in the same order.")
    found = selection.change(first, second, deviations=deviations, either_way=either_way)
    _write(out, row=rows[found.flagged], delta=found.delta[found.flagged], z=found.z[found.flagged])


def _read(path: Path, column: str | None) -> tuple[Any, Any]:
    from probes.embeddings.scoring import read_scores

    return read_scores(path, column)


def _embeddings(path: Path, array: str) -> Any:
    from probes.embeddings.files import open_embeddings

    file = open_embeddings(path, array)
    return np.concatenate(list(file.blocks(0, file.rows)))


def _write(out: Path, **columns: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists():
        raise DataError(f"the output {out} must not exist yet; remove it or choose another name.")
    temporary = out.with_name(f"{out.name}.partial")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(out)
    click.echo(f"{len(columns['row']):,} rows selected; wrote {out} with {', '.join(columns)}.")


COMMANDS = (fit_pairs, score, select)

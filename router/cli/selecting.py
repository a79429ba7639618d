"""`elle select`: choose rows of embedding files by their scores, or choose the rows to label next."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from probes.embeddings import selection
from probes.errors import DataError
from router.cli.options import ARRAY, PATH, FiniteRange, json_option, output_option, seed_option, with_options
from router.cli.output import answers_in_json, print_json

_PARQUET = output_option("The parquet file to write.", suffix=".parquet")
_COLUMN = click.option("--column", metavar="NAME", help="The column of the scores. Default: the only column of losses.")
_COUNT = click.option("--count", required=True, type=click.IntRange(1), help="The number of rows to select.")
_SEED = seed_option("The seed of the random draw.")
_SHARE = FiniteRange(0, 1, max_open=True)


#: Gives a command `--out`, `--force` and `--json`; `_write` writes the file and prints what was written.
_output_options = with_options(_PARQUET, json_option(expose_value=False))


#: How many rows, drawn uniformly, the rules of `elle select label` choose from; `random` takes the draw itself.
POOL_ROWS = 20_000


def _first(features: Any, count: int, seed: int, worth: Any, known: Any) -> Any:
    return np.arange(count)


def _herd(features: Any, count: int, seed: int, worth: Any, known: Any) -> Any:
    from probes.embeddings.labelling import herd

    return herd(features, count, seed=seed)


def _d_optimal(features: Any, count: int, seed: int, worth: Any, known: Any) -> Any:
    return selection.next_to_label(features, count, gain=worth, labelled=known)


#: The rules by which `elle select label` chooses: (features, count, seed, worth, known) -> positions in the pool.
RULES: Mapping[str, Callable[[Any, int, int, Any, Any], Any]] = {
    "random": _first,
    "herding": _herd,
    "d-optimal": _d_optimal,
}
DEFAULT_RULE = "random"
_RULES_HELP = (
    "random: a uniform draw. herding: rows that together represent all rows. d-optimal: rows that differ most from "
    "each other and from --labelled."
)


@click.group("select", short_help="Choose rows by their scores, or rows to label next.")
def select_group() -> None:
    """Choose rows by their scores, or choose the rows to label next.

    Each verb writes a parquet file with the column `row`, and with the scores by which the rows were chosen.
    """


@select_group.command("keep", short_help="Keep all rows but the easiest and the hardest.")
@click.argument("scores", type=PATH)
@click.option("--drop-easiest", default=0.0, type=_SHARE, help="The share of the rows, the easiest ones, to drop.")
@click.option("--drop-hardest", default=0.0, type=_SHARE, help="The share of the rows, the hardest ones, to drop.")
@_COLUMN
@_output_options
def keep_verb(scores: Path, drop_easiest: float, drop_hardest: float, column: str | None, out: Path) -> None:
    """Keep the rows of SCORES that are neither among the easiest nor among the hardest; for curation."""
    rows, loss = _read(scores, column)
    mask = selection.keep_between(loss, drop_easiest=drop_easiest, drop_hardest=drop_hardest)
    _write(out, row=rows[mask], score=loss[mask])


@select_group.command("stratified", short_help="Draw equally many rows from every class of difficulty.")
@click.argument("scores", type=PATH)
@_COUNT
@click.option(
    "--strata", default=10, show_default=True, type=click.IntRange(1), help="The number of difficulty classes."
)
@_SEED
@_COLUMN
@_output_options
def stratified_verb(scores: Path, count: int, strata: int, seed: int, column: str | None, out: Path) -> None:
    """Draw a sample of SCORES in which every class of difficulty is equally frequent."""
    rows, loss = _read(scores, column)
    chosen = selection.stratified(loss, count, strata=strata, seed=seed)
    _write(out, row=rows[chosen], score=loss[chosen])


@select_group.command("suspicious", short_help="Select the rows whose predicted loss is unusually high.")
@click.argument("scores", type=PATH)
@click.option(
    "--deviations",
    type=float,
    help="Select rows whose score lies this many robust standard deviations above the median; 3.5 is customary.",
)
@click.option("--share", type=FiniteRange(0, 1), help="Select this share of the rows instead.")
@_COLUMN
@_output_options
def suspicious_verb(scores: Path, deviations: float | None, share: float | None, column: str | None, out: Path) -> None:
    """Select the rows of SCORES whose predicted loss is unusually high; for filtering by quality."""
    rows, loss = _read(scores, column)
    mask = selection.suspicious(loss, deviations=deviations, share=share)
    _write(out, row=rows[mask], score=loss[mask])


@select_group.command("label", short_help="Choose the rows to label next.")
@click.argument("embeddings", type=PATH)
@_COUNT
@click.option("--rule", type=click.Choice(list(RULES)), default=DEFAULT_RULE, show_default=True, help=_RULES_HELP)
@_SEED
@click.option(
    "--exclude", multiple=True, type=PATH, metavar="ROWS", help="A file of rows not to choose again; repeatable."
)
@click.option(
    "--pool",
    default=POOL_ROWS,
    show_default=True,
    type=click.IntRange(1),
    help="The number of rows, drawn uniformly, that herding and d-optimal choose from.",
)
@click.option("--gain", "gains", type=PATH, help="For d-optimal: a file of scores that say what each label is worth.")
@click.option("--labelled", type=PATH, help="For d-optimal: a file of embeddings that have labels already.")
@ARRAY
@_COLUMN
@_output_options
def label_verb(
    embeddings: Path, count: int, array: str | None, out: Path, pool: int, seed: int, **options: Any
) -> None:
    """Choose the rows of EMBEDDINGS to label next, in constant memory.

    The rule `random` draws them uniformly; a larger draw with the same seed begins with the rows of a smaller one. We
    tried fourteen other rules on real outcomes, and none was better on all of them (docs/label-selection.md). `herding`
    was ahead on two files of three from 100 labels on; `d-optimal` was behind.
    """
    from probes.embeddings.files import open_embeddings
    from probes.embeddings.labelling import sample_rows

    rule, gains = options["rule"], options["gains"]
    if rule != "d-optimal" and (gains or options["labelled"]):
        raise click.UsageError("--gain and --labelled are for --rule d-optimal.")
    if options["column"] is not None and gains is None:
        raise click.UsageError("--column names a column of the file of --gain, and there is none.")
    file = open_embeddings(embeddings, array)
    worth = None if gains is None else _gain(gains, options["column"], file.rows)
    # If it is unknown what the label of a row is worth, the rule cannot weigh that row.
    exclude = [_rows(path) for path in options["exclude"]]
    exclude += [] if worth is None else [np.flatnonzero(np.isnan(worth))]
    wanted = count if rule == "random" else max(count, pool)
    drawn = sample_rows(file, wanted, seed=seed, exclude=np.concatenate([[], *exclude]))
    if len(drawn.rows) < count:
        raise DataError(f"--count must be at most the {len(drawn.rows):,} rows that can be chosen, got {count:,}.")
    known = None if options["labelled"] is None else _known(options["labelled"], array, pool)
    chosen = RULES[rule](drawn.features, count, seed, None if worth is None else worth[drawn.rows], known)
    if drawn.n_bad:
        click.echo(f"note: {drawn.n_bad:,} rows hold NaN or infinity or are missing; they are not chosen.", err=True)
    _write(out, row=drawn.rows[chosen], rank=np.arange(count))


def _gain(path: Path, column: str | None, n_rows: int) -> Any:
    """Return how much a label of each row is worth, (n_rows,), at least 0, with NaN for a row of unknown worth."""
    from probes.embeddings.scoring import read_scores

    rows, gain = read_scores(path, column)
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
        raise DataError(f"{path} must score rows of the embeddings, 0 to {n_rows - 1:,}; it has row {rows.max():,}.")
    worth = np.full(n_rows, np.nan)
    worth[rows] = np.clip(gain, 0.0, None)
    return worth


def _known(path: Path, array: str | None, pool: int) -> Any:
    from probes.embeddings.files import open_embeddings
    from probes.embeddings.labelling import sample_rows

    # The array of an npy file has no name.
    return sample_rows(open_embeddings(path, None if path.suffix == ".npy" else array), pool).features


def _rows(path: Path) -> Any:
    """Return the column `row` of a parquet file that a verb of `elle select` wrote."""
    from probes.bounded.parquet import open_parquet, read_parquet
    from probes.bounded.text import path_fault

    if (fault := path_fault(path)) is not None:
        raise DataError(f"there is no file of rows at {path}: it {fault}.")
    with open_parquet(path) as file:
        names = file.schema_arrow.names
    if "row" not in names:
        raise DataError(f"{path} must have the column 'row', as `elle select` writes it; it has {', '.join(names)}.")
    return read_parquet(path, ["row"])["row"].to_numpy()


@select_group.command("change", short_help="Select the rows whose predicted loss rose unusually.")
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option(
    "--deviations",
    default=3.5,
    show_default=True,
    type=float,
    help="Select rows whose change lies this many robust standard deviations above the median change.",
)
@click.option("--either-way", is_flag=True, help="Also select rows whose predicted loss fell unusually.")
@_COLUMN
@_output_options
def change_verb(before: Path, after: Path, deviations: float, either_way: bool, column: str | None, out: Path) -> None:
    """Select the rows whose predicted loss rose unusually from the scores BEFORE to the scores AFTER (Delta-ELLE)."""
    from probes.embeddings.scoring import read_scores

    rows, first = read_scores(before, column)
    later_rows, second = read_scores(after, column)
    if not np.array_equal(rows, later_rows):
        raise DataError(f"{before} and {after} must score the same rows in the same order.")
    rows, first, second = _scored(after, rows, first, second)
    found = selection.change(first, second, deviations=deviations, either_way=either_way)
    _write(out, row=rows[found.flagged], delta=found.delta[found.flagged], z=found.z[found.flagged])


def _read(path: Path, column: str | None) -> tuple[Any, Any]:
    """Return the rows and their scores. Rows without a score are left out, and their number is printed."""
    from probes.embeddings.scoring import read_scores

    rows, scores = read_scores(path, column)
    return _scored(path, rows, scores)


def _scored(path: Path, rows: Any, *scores: Any) -> tuple[Any, ...]:
    """Return the rows and each array of scores without the rows that lack a score, and print how many these are."""
    known = np.all([np.isfinite(one) for one in scores], axis=0)
    if not known.any():
        raise DataError(f"{path} must hold scores, got none that is a number.")
    if not known.all():
        click.echo(f"note: {int((~known).sum()):,} rows of {path} have no score and are left out.", err=True)
    return rows[known], *(one[known] for one in scores)


def _write(out: Path, **columns: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        pq.write_table(pa.table(columns), temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    if answers_in_json():
        print_json({"rows": len(columns["row"]), "columns": list(columns)})
    else:
        click.echo(f"{len(columns['row']):,} rows selected; wrote {out} with {', '.join(columns)}.")

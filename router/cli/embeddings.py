"""The verbs of `elle` on embeddings: `fit-pairs` fits a probe, `score` scores whole files, `embed` embeds prompts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from router.cli.options import ARRAY, ENCODER, ENCODER_DIR, JSON, PATH, engine_options, output_option
from router.cli.output import INCOMPLETE, print_json, progress_bar


@click.command("fit-pairs", short_help="Fit a probe to pairs of embedding and loss.")
@click.argument("pairs", type=PATH)
@output_option("The folder to write the probe to.", folder=True)
@click.option("--name", metavar="NAME", help="The name of the probe. Default: the name of its folder.")
@engine_options
@JSON
def fit_pairs_verb(pairs: Path, out: Path, name: str | None, engine: Any, as_json: bool) -> None:
    """Fit a probe to PAIRS of embedding and loss (npz, parquet, safetensors), for any model of any modality.

    The file may be of any size. Pairs that hold NaN or infinity are left out and counted; the exit status is then 3.
    """
    from probes.artifacts import store as artifact
    from probes.losses.fitting import fit_pair_source
    from probes.losses.precomputed import PairFile
    from probes.probe import DataSource
    from probes.shards.work import PlainLoop

    def describe(n_pairs: int) -> DataSource:
        with pairs.open("rb") as file:
            return DataSource(pairs.name, hashlib.file_digest(file, "sha256").hexdigest(), n_pairs)

    engine = engine or PlainLoop()
    with progress_bar("fitting") as on_progress:
        fit = fit_pair_source(
            PairFile(pairs), name or out.resolve().name, describe, engine=engine, on_progress=on_progress
        )
    artifact.save(fit.probe, out)
    r = fit.r
    if as_json:
        figures = {"value": r.value, "low": r.low, "high": r.high}
        print_json({"pairs": fit.n_pairs, "left_out": fit.bad_rows, "r": figures})
    else:
        click.echo(f"r = {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] on pairs left out (5 folds); wrote {out}.")
    if bad := fit.bad_rows:
        shown = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
        click.echo(f"{len(bad):,} pairs hold NaN or infinity and are left out: rows {shown}.", err=True)
        raise SystemExit(INCOMPLETE)


@click.command("score", short_help="Score every row of a file of embeddings or prompts.")
@click.argument("source", metavar="EMBEDDINGS", type=PATH)
@click.option("--probe", "probe_dir", required=True, type=PATH, help="The folder of the probe.")
@output_option("The parquet file to write.", suffix=".parquet")
@ARRAY
@ENCODER_DIR
@engine_options
@JSON
def score_verb(source: Path, probe_dir: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Score every row of EMBEDDINGS (npy, npz, parquet, safetensors) into parquet, in constant memory.

    EMBEDDINGS may also be a file of prompts, as `elle embed` reads them: they are encoded by the encoder of the probe.
    Run the same command again to continue an interrupted run. Rows that cannot be scored get NaN; they are counted and
    listed in OUT.bad-rows.csv, and the exit status is then 3.
    """
    from probes.artifacts import store as artifact
    from probes.embeddings.scoring import probe_scorer, score_file

    probe = artifact.load(probe_dir)
    embeddings, scoring = _scoring_of(source, probe, **options)
    report = score_file(embeddings, out, probe_scorer(probe), scorer_id=probe.identity, options=scoring)
    if as_json:
        found = {"rows": report.rows, "resumed_rows": report.resumed_rows, "columns": report.columns}
        listed = None if report.bad_rows_file is None else str(report.bad_rows_file)
        print_json(found | {"bad_rows": report.bad_rows, "bad_rows_file": listed})
    else:
        resumed = f", {report.resumed_rows:,} of them by an earlier run" if report.resumed_rows else ""
        click.echo(f"{report.rows:,} rows{resumed}; wrote {out} with {', '.join(report.columns)}.")
    for folder in report.leftovers:
        click.echo(
            f"note: {folder} holds unfinished work of another run; delete it if you do not need it.",
            err=True,
        )
    if report.bad_rows:
        click.echo(
            f"{report.bad_rows:,} of the rows have no score; {report.bad_rows_file} lists them with the reason.",
            err=True,
        )
        raise SystemExit(INCOMPLETE)


def _scoring_of(source: Path, probe: Any, array: str | None, encoder_dir: Path | None, engine: Any) -> Any:
    """Return what `score_file` is to score and how: a file of embeddings, or prompts with the encoder of the probe."""
    from probes.embeddings.scoring import ScoringOptions
    from probes.shards.work import PlainLoop
    from router.tuning.outcomes.feature_cache import encoder_spec
    from router.tuning.outcomes.prompt_embeddings import SHARD_OF_PROMPTS, PromptSource, holds_prompts

    options = ScoringOptions(array=array, overwrite=True, engine=engine or PlainLoop())
    if array is not None or not holds_prompts(source):
        return source, options
    prompts = PromptSource(source, encoder_spec(probe), probe.n_features, encoder_dir)
    return prompts, replace(options, part_rows=SHARD_OF_PROMPTS)


@click.command("embed")
@click.argument("prompts", type=PATH)
@output_option("The file of embeddings to write, .npy or .parquet.")
@ENCODER
@click.option("--probe", "probe_dir", type=PATH, help="Use the encoder of this probe instead of --encoder.")
@ENCODER_DIR
@JSON
def embed_verb(prompts: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Embed PROMPTS for `elle score` and `elle select`.

    PROMPTS is a text file with one prompt on each line, or JSONL, CSV or parquet with a column `prompt` or `messages`.
    Each row is encoded as the service would encode it. Rows without a prompt get NaN; they are counted and listed in
    OUT.bad-rows.csv, and the exit status is then 3.
    """
    from router.tuning.outcomes.prompt_embeddings import embed_prompts

    with progress_bar("encoding") as on_progress:
        found = embed_prompts(prompts, out, on_progress=on_progress, **options)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(f"{found.rows:,} embeddings of {found.width} numbers; wrote {out}. Encoder {found.encoder[:12]}.")
    if found.bad_rows:
        click.echo(f"{found.bad_rows:,} of the rows hold no prompt; {found.bad_rows_file} lists them.", err=True)
        raise SystemExit(INCOMPLETE)

"""`elle` on embeddings: fit a probe to (embedding, loss) pairs, score files of any size, embed prompts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from router.cli.common import INCOMPLETE, JSON, PATH, output, print_json, progress

_OUT = output("Parquet file to write.")


@click.command("fit-pairs")
@click.argument("pairs", type=PATH)
@output("Folder to write the probe to.", folder=True)
@click.option("--name", help="Name of the probe; the folder's unless set.")
def fit_pairs(pairs: Path, out: Path, name: str | None) -> None:
    """Fit a probe to PAIRS of embedding and loss (npz, parquet, safetensors), for any model of any modality.

    Pairs that hold NaN or infinity are left out and counted, and the exit status is 3.
    """
    from probes.artifacts import store as artifact
    from probes.losses.fitting import fit_loss_probe
    from probes.losses.precomputed import read_pairs
    from probes.probe import DataSource

    bad: list[int] = []
    found = read_pairs(pairs, on_bad_rows=lambda rows: bad.extend(rows.tolist()))
    with pairs.open("rb") as file:
        source = DataSource(pairs.name, hashlib.file_digest(file, "sha256").hexdigest(), len(found))
    probe, r = fit_loss_probe(found, name or out.resolve().name, source=source)
    artifact.save(probe, out)
    click.echo(f"r = {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] on pairs left out (5 folds); wrote {out}.")
    if bad:
        shown = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
        click.echo(f"{len(bad):,} pairs hold NaN or infinity and are left out: rows {shown}.", err=True)
        raise SystemExit(INCOMPLETE)


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


@click.command()
@click.argument("prompts", type=PATH)
@output("Embedding file to write, .npy or .parquet.")
@click.option("--encoder", default="minilm-l6", show_default=True, help="Built-in name, or a .json encoder spec.")
@click.option("--probe", "probe_dir", type=PATH, help="Take the encoder of this probe instead.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@JSON
def embed(prompts: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Embed PROMPTS for `elle score` and `elle select`: a text file with one on each line, or JSONL, CSV or parquet.

    Rows have a column prompt or messages, and are encoded as the service would encode them. Rows without a prompt get
    NaN; they are counted and listed in OUT.bad-rows.csv, and the exit status is 3.
    """
    from router.tuning.outcomes.prompt_embeddings import embed_command

    with progress("encoding") as on_progress:
        found = embed_command(prompts, out, on_progress=on_progress, **options)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(f"{found.rows:,} embeddings of {found.width} numbers; wrote {out}. Encoder {found.encoder[:12]}.")
    if found.bad_rows:
        click.echo(f"{found.bad_rows:,} of the rows hold no prompt; {found.bad_rows_file} lists them.", err=True)
        raise SystemExit(INCOMPLETE)


COMMANDS = (fit_pairs, score, embed)

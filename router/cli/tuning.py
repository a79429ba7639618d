"""`elle` offline: import outcomes, fit a probe, evaluate it, tune a policy on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.cli.common import JSON, PATH, names_of, output, print_json, progress, stdout

#: Exit status of `elle tune` where the data do not allow a certificate; 1 is an error, 2 wrong usage.
NOT_CERTIFIED = 3


@click.command("import")
@click.argument("kind")
@click.argument("paths", metavar="IN...", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="File to write, .parquet or .jsonl.")
@click.option("--scores", type=PATH, help="File of id and score, for logs that hold no scores.")
@click.option("--score-name", help="Which of a Langfuse export's scores.")
@click.option(
    "--score-map", multiple=True, metavar="WORD=QUALITY,...", help="What words are worth: good=1,bad=0,unsure=skip."
)
@click.option(
    "--score-range", nargs=2, type=float, metavar="WORST BEST", help="The worst and the best score: 1 5, or 1 0."
)
@click.option("--force", is_flag=True, help="Replace the file of --out.")
@JSON
def import_(kind: str, paths: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Bring outcomes kept by other programs into the form that fit, tune and evaluate read.

    KIND: routellm, routerbench, mmlu-pro, openai-batch, litellm-spend-logs or langfuse. IN: its files, or folders of
    them. Says what it read as score; where that needs to be known, it asks for --score-map or --score-range. Rows that
    cannot be used are left out, counted, and listed in a file beside --out.
    """
    from router.tuning.outcomes.adapters import import_command

    summary = import_command(kind, paths, out, **options)
    if as_json:
        print_json(summary.to_dict())
    else:
        summary.print(stdout())


@click.command()
@click.argument("data", nargs=-1, required=True, type=PATH)
@output("Folder to write the probe to.", folder=True)
@click.option("--models", help="Comma-separated; all models of the data unless set.")
@click.option("--encoder", default="minilm-l6", show_default=True, help="Built-in name, or a .json encoder spec.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@click.option("--name", help="Name of the probe; the folder's unless set.")
@click.option("--holdout", default="0", show_default=True, help="Left out for `elle tune`: a share, or latest:20%.")
@click.option("--seed", default=0, show_default=True, help="Of the folds and of what is held out.")
@click.option("--prior", type=PATH, metavar="PROBE", help="Adapt this probe to DATA, 50 labels of each model or more.")
@click.option("--keep-statistics", is_flag=True, help="Let the probe be a --prior later: sums of its fit, no prompt.")
@JSON
def fit(data: tuple[Path, ...], out: Path, models: str | None, as_json: bool, **options: Any) -> None:
    """Fit a probe to outcomes DATA (parquet, JSONL or CSV: prompt, model, score).

    With --prior the statistics of an old fit, made with --keep-statistics, stand in for the labels that DATA lacks.
    """
    from router.tuning.fitting.fit import fit_command

    with progress("encoding") as on_progress:
        summary = fit_command(data, out, models=names_of(models), on_progress=on_progress, **options)
    if as_json:
        print_json(summary.to_dict())
    else:
        summary.print(stdout())


@click.command()
@click.argument("paths", metavar="[PROBE] DATA...", nargs=-1, required=True, type=PATH)
@click.option("--policy", "policy_file", type=PATH, help="Evaluate this policy instead of a probe's ranking.")
@click.option("--weak", metavar="MODEL", help="The cheap model; of a policy its cheapest tier unless set.")
@click.option("--strong", metavar="MODEL", help="The expensive model; of a policy its strongest tier unless set.")
@click.option("--holdout", metavar="latest:SHARE", help="With --policy: only the latest prompts, as in latest:20%.")
@click.option("--time-column", metavar="NAME", help="Where DATA say when a prompt was asked; found by name unless set.")
@click.option("--prices", metavar="FILE.yaml|litellm", help="List prices by model, for costs the data do not have.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Of the bootstrap.")
@click.option("--cv", "folds", type=click.IntRange(2), help="Refit the probe's recipe in this many folds of DATA.")
@click.option(
    "--split", type=click.Choice(["random", "group"]), default="random", show_default=True, help="Folds of --cv."
)
@click.option("--quick", is_flag=True, help="Only the baselines that need no fitting and no LiteLLM.")
@click.option("--seed", default=0, show_default=True)
@JSON
def evaluate(paths: tuple[Path, ...], policy_file: Path | None, as_json: bool, **options: Any) -> None:
    """Evaluate a policy, or the ranking of a PROBE, on DATA.

    With --policy: decide every prompt of DATA as the service would, and say what share goes where, with what quality
    and at what cost, against always the strong model. Each profile of the policy has a row of its own.

    With a PROBE: how well does it rank prompts that it has not seen by the gain of --strong over --weak? With --cv,
    DATA may be what it was fitted on: its recipe is fitted anew on the other folds. The figures of a random split and
    of whole groups left out are then printed side by side.
    """
    report = _evaluate_probe(paths, options) if policy_file is None else _evaluate_policy(paths, policy_file, options)
    if report.warning:
        click.echo(f"Warning: {report.warning}", err=True)
    if as_json:
        print_json(report.to_dict())
    else:
        report.print(stdout())


def _evaluate_probe(paths: tuple[Path, ...], options: dict[str, Any]) -> Any:
    from router.tuning.judging.evaluate import evaluate_command

    if len(paths) < 2 or options["weak"] is None or options["strong"] is None:
        raise click.UsageError("give PROBE and DATA with --weak and --strong, or --policy FILE and DATA.")
    if options.pop("holdout") is not None or options.pop("time_column") is not None:
        raise click.UsageError("--holdout and --time-column are for --policy.")
    with progress("encoding") as on_progress:
        return evaluate_command(paths[0], paths[1:], on_progress=on_progress, **options)


def _evaluate_policy(paths: tuple[Path, ...], policy_file: Path, options: dict[str, Any]) -> Any:
    from router.tuning.judging.policy_evaluation import evaluate_policy_command

    for name in ("prices", "folds", "quick"):
        if options.pop(name):
            raise click.UsageError(f"--{'cv' if name == 'folds' else name} is for a PROBE; a policy states its own.")
    options.pop("split")
    if folders := [path for path in paths if path.is_dir()]:
        raise click.UsageError(f"with --policy give files of outcomes only, got the folder {folders[0]}.")
    with progress("encoding") as on_progress:
        return evaluate_policy_command(policy_file, paths, on_progress=on_progress, **options)


@click.command()
@click.argument("probe", type=PATH)
@click.argument("data", nargs=-1, required=True, type=PATH)
@click.option("--weak", required=True, metavar="MODEL", help="The cheap model.")
@click.option("--strong", required=True, metavar="MODEL", help="The dear model.")
@output("Folder for the page and its pictures.", folder=True)
@click.option("--policy", "policy_file", type=PATH, help="Policy to mark, with what its certificate covers.")
@click.option("--prices", metavar="FILE.yaml|litellm", help="List prices by model, for costs the data do not have.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@click.option("--cv", "folds", type=click.IntRange(2), help="Refit the probe's recipe in this many folds of DATA.")
@click.option(
    "--split", type=click.Choice(["random", "group"]), default="random", show_default=True, help="Folds of --cv."
)
@click.option("--quick", is_flag=True, help="Only the baselines that need no fitting and no LiteLLM.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Of the bootstrap.")
@click.option("--seed", default=0, show_default=True)
def report(probe: Path, data: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Write one self-contained HTML page of what PROBE does on DATA, and its pictures beside it."""
    from router.tuning.reporting.report import report_command

    with progress("encoding") as on_progress:
        page = report_command(probe, data, out, on_progress=on_progress, **options)
    click.echo(f"Wrote {page}.")


@click.command()
@click.argument("probe", type=PATH)
@click.argument("data", nargs=-1, type=PATH)
@click.option("--calibration", multiple=True, type=PATH, metavar="FILE", help="Certify with all of it; repeatable.")
@click.option("--weak", metavar="MODEL", help="The cheap model; with --strong.")
@click.option("--strong", metavar="MODEL", help="The dear model, the reference.")
@click.option("--models", help="Comma-separated, cheapest first, instead; the last is the reference.")
@click.option("--candidates", type=PATH, help="Policy file to take the candidates from, instead.")
@click.option("--reference", metavar="MODEL", help="Losses are measured against it; the last model unless set.")
@click.option("--max-loss", type=float, help="Mean quality lost against the reference, 0 to 1.")
@click.option("--min-quality", type=float, help="Mean quality, 0 to 1.")
@click.option("--max-strong-share", type=float, help="Share of prompts that the reference answers, 0 to 1.")
@click.option("--max-cost-usd-per-1k", type=float, help="Mean cost of 1,000 requests.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME=MAX_LOSS", help="A further rule; repeatable.")
@click.option("--confidence", default=0.95, show_default=True, help="That all targets hold together.")
@click.option("--rule", type=click.Choice(["gain", "cost"]), help="cost for 3 models or more with prices, else gain.")
@click.option("--prices", metavar="FILE.yaml|litellm", help="List prices by model.")
@click.option("--max-request-usd", type=float, help="No request costs more; for targets on cost.")
@click.option("--bound", type=click.Choice(["ternary", "betting"]), help="For 0/1 or graded scores; as in the fit.")
@click.option(
    "--sessions",
    type=click.Choice(["ignore", "hold"]),
    default="ignore",
    show_default=True,
    help="hold: the certificate leaves out what sessions hold.",
)
@click.option("--valid-days", default=90.0, show_default=True, help="Until the certificate expires.")
@click.option("--by-group", is_flag=True, help="Also certify each group of the data by itself.")
@click.option("--plan", is_flag=True, help="Also say what more labels would buy.")
@output("Policy file to write.", required=False)
@click.option("--allow-uncertified", is_flag=True, help="Write it without a certificate where none can be given.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@JSON
def tune(probe: Path, data: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Tune a policy on PROBE to targets, certified with DATA that it was not fitted on.

    DATA: the file of the fit, of which what --holdout left out certifies, or other requests. --calibration: other
    requests, all of which certify, also where the fit saw their text; DATA is then of the fit, or absent. Every attempt
    is noted in PROBE.tune-log.jsonl.

    Exit status 3 and no policy file if that is not possible with these data.
    """
    from router.tuning.certifying.tune import tune_command

    rest = {name: options.pop(name) for name in ("out", "allow_uncertified", "encoder_dir")}
    settings = _tune_settings(options)
    with progress("encoding") as on_progress:
        report = tune_command(probe, data, settings, on_progress=on_progress, **rest)
    if as_json:
        print_json(report.to_dict())
    else:
        report.print(stdout())
    if not report.certified:
        raise SystemExit(NOT_CERTIFIED)


def _tune_settings(options: dict[str, Any]) -> Any:
    from router.tuning.certifying.targets import Target
    from router.tuning.certifying.tuning_run import TuneSettings

    kinds = ("max_loss", "min_quality", "max_strong_share", "max_cost_usd_per_1k")
    limits = {kind: options.pop(kind) for kind in kinds}
    weak, strong, models = (options.pop(name) for name in ("weak", "strong", "models"))
    if (weak is None) != (strong is None) or sum(map(bool, (weak, models, options["candidates"]))) != 1:
        raise click.UsageError("give either --weak and --strong, or --models, or --candidates.")
    profiles = {}
    for given in options.pop("profiles"):
        name, _, limit = given.partition("=")
        try:
            profiles[name] = Target("max_loss", float(limit))
        except ValueError as error:
            raise click.UsageError(f"--profile must be NAME=MAX_LOSS, as in economy=0.05; got {given!r}.") from error
    return TuneSettings(
        targets=tuple(Target(kind, limit) for kind, limit in limits.items() if limit is not None),  # type: ignore[arg-type]
        profiles=profiles,
        models=(weak, strong) if weak else names_of(models) or (),
        calibration=options.pop("calibration"),
        **options,
    )


@click.command("export-encoder")
@output("Folder to write the bundle to.", folder=True)
@click.option("--encoder", default="minilm-l6", show_default=True, help="Built-in name, or a .json encoder spec.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's original files are.")
@click.option("--parity", multiple=True, type=PATH, metavar="DATA", help="Outcomes to compare routing on; repeatable.")
@click.option("--weak", metavar="MODEL", help="The cheap model of DATA.")
@click.option("--strong", metavar="MODEL", help="The dear model of DATA.")
@JSON
def export_encoder(out: Path, as_json: bool, **options: Any) -> None:
    """Export an encoder to serve without torch, and report how close it stays to its reference.

    With --parity the probe's recipe is fitted on the features of both precisions. Exit status 3 if the exported one
    routes worse or is calibrated worse.
    """
    from router.tuning.judging.encoder_export import export_command

    with progress("encoding") as on_progress:
        report = export_command(out, on_progress=on_progress, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        report.print(stdout())
    if report.routing is not None and not report.routing.passed:
        raise SystemExit(NOT_CERTIFIED)


COMMANDS = (import_, fit, evaluate, report, tune, export_encoder)

"""The verbs of `elle` that judge: evaluate or preview a policy, write a report, compare an exported encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.cli.options import (
    COLUMNS,
    ENCODER,
    ENCODER_DIR,
    ENGINE_NAMES,
    JSON,
    LOG_FORMAT,
    PATH,
    PRICES,
    PROBE,
    GroupedCommand,
    engine_options,
    output_option,
    require_free,
    require_other_than_input,
    seed_option,
)
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, progress_bars, stdout

_FOLDS = click.option(
    "--cv",
    "folds",
    type=click.IntRange(2),
    help="Cross-validate: fit the probe's recipe anew in this many folds of DATA.",
)
_SPLIT = click.option(
    "--split",
    type=click.Choice(["random", "group"]),
    default="random",
    show_default=True,
    help="How --cv assigns prompts to folds: at random, or whole groups of the data together.",
)
_QUICK = click.option(
    "--quick", is_flag=True, help="Compare only with the baselines that need neither a fit nor LiteLLM."
)
_RESAMPLES = click.option(
    "--resamples",
    default=1000,
    show_default=True,
    type=click.IntRange(100),
    help="The number of bootstrap samples behind each interval.",
)
_SEED = seed_option("The seed of folds and bootstrap samples.")

_EVALUATE_GROUPS = {
    "What to compare": ("policy_file", "weak", "strong", "quick"),
    "Which prompts": ("holdout", "time_column", "folds", "split"),
    "How to compute": ("prices", "resamples", "seed", "encoder_dir", *ENGINE_NAMES),
}


@click.command(
    "evaluate", cls=GroupedCommand, groups=_EVALUATE_GROUPS, short_help="Evaluate a policy or a probe on outcomes."
)
@click.argument("paths", metavar="[PROBE] DATA...", nargs=-1, required=True, type=PATH)
@click.option("--policy", "policy_file", type=PATH, help="Evaluate this policy instead of the ranking of a probe.")
@click.option("--weak", metavar="MODEL", help="The cheap model. Default, with --policy: the cheapest tier.")
@click.option("--strong", metavar="MODEL", help="The expensive model. Default, with --policy: the strongest tier.")
@click.option(
    "--holdout", metavar="latest:SHARE", help="With --policy: evaluate only on the newest prompts, as in latest:20%."
)
@click.option(
    "--time-column",
    metavar="NAME",
    help="With --policy: the column that says when a prompt was asked. Default: the one with a usual name.",
)
@PRICES
@ENCODER_DIR
@_RESAMPLES
@_FOLDS
@_SPLIT
@_QUICK
@_SEED
@engine_options
@JSON
def evaluate_verb(paths: tuple[Path, ...], policy_file: Path | None, as_json: bool, **options: Any) -> None:
    """Evaluate a policy, or the ranking of a PROBE, on DATA.

    With --policy, every prompt of DATA is decided as the service would decide it. The answer says which share of the
    prompts each candidate gets, with what quality and at what cost, in comparison with always the strong model. Each
    profile of the policy has a row of its own.

    With a PROBE, the answer says how well it ranks prompts by what --strong gains over --weak. If the probe was fitted
    on DATA, give --cv: its recipe is then fitted anew without the prompts that it judges, and the figures of a random
    split and of a split by groups are printed side by side.
    """
    if policy_file is None:
        _evaluate_probe(paths, as_json, options)
    else:
        _evaluate_policy(paths, policy_file, as_json, options)


def _evaluate_probe(paths: tuple[Path, ...], as_json: bool, options: dict[str, Any]) -> None:
    from router.cli.steps.evaluate_files import evaluate_probe_files
    from router.tuning.reporting.evaluation_text import print_evaluation

    if len(paths) < 2 or options["weak"] is None or options["strong"] is None:
        raise click.UsageError("give PROBE and DATA with --weak and --strong, or --policy FILE and DATA.")
    if options.pop("holdout") is not None or options.pop("time_column") is not None:
        raise click.UsageError("--holdout and --time-column are for --policy.")
    evaluation_options = _evaluation_options(options)
    with progress_bar("encoding") as on_progress:
        found = evaluate_probe_files(_pair_files(paths[0], paths[1:], options), evaluation_options, on_progress)
    _warn(found.warning)
    if as_json:
        print_json(found.to_dict())
    else:
        print_evaluation(found, stdout())


def _evaluate_policy(paths: tuple[Path, ...], policy_file: Path, as_json: bool, options: dict[str, Any]) -> None:
    from router.cli.steps.evaluate_files import PolicyFiles, evaluate_policy_files
    from router.tuning.judging.policy_evaluation import PolicyEvaluationOptions
    from router.tuning.reporting.policy_text import policy_json, policy_warning, print_policy

    for name in ("prices", "folds", "quick"):
        if options[name]:
            raise click.UsageError(f"--{'cv' if name == 'folds' else name} is for a PROBE; a policy states its own.")
    if folders := [path for path in paths if path.is_dir()]:
        raise click.UsageError(f"with --policy give files of outcomes only, got the folder {folders[0]}.")
    files = PolicyFiles(
        policy_file, paths, options["holdout"], options["time_column"], options["encoder_dir"], options["engine"]
    )
    compared = PolicyEvaluationOptions(options["weak"], options["strong"], options["resamples"], options["seed"])
    with progress_bar("encoding") as on_progress:
        found = evaluate_policy_files(files, compared, on_progress)
    _warn(policy_warning(found))
    if as_json:
        print_json(policy_json(found))
    else:
        print_policy(found, stdout())


def _pair_files(probe: Path, data: tuple[Path, ...], options: dict[str, Any]) -> Any:
    from router.tuning.outcomes.pair_data import PairFiles

    weak, strong, engine = options["weak"], options["strong"], options.get("engine")
    return PairFiles(probe, data, weak, strong, options["prices"], options["encoder_dir"], engine)


def _evaluation_options(options: dict[str, Any]) -> Any:
    from router.tuning.judging.baselines import all_baselines, quick_baselines
    from router.tuning.judging.probe_evaluation import EvaluationOptions

    baselines = quick_baselines() if options["quick"] else all_baselines()
    return EvaluationOptions(options["folds"], options["split"], baselines, options["resamples"], options["seed"])


def _warn(warning: str | None) -> None:
    if warning:
        click.echo(f"Warning: {warning}", err=True)


_REPORT_GROUPS = {
    "What to show": ("weak", "strong", "policy_file", "quick"),
    "How to compute": ("folds", "split", "prices", "resamples", "seed", "encoder_dir"),
}


@click.command(
    "report",
    cls=GroupedCommand,
    groups=_REPORT_GROUPS,
    short_help="Write an HTML page on what a probe does on outcomes.",
)
@PROBE
@click.argument("data", nargs=-1, required=True, type=PATH)
@click.option("--weak", required=True, metavar="MODEL", help="The cheap model.")
@click.option("--strong", required=True, metavar="MODEL", help="The expensive model.")
@output_option("The folder to write the page and its pictures to.", folder=True)
@click.option(
    "--policy", "policy_file", type=PATH, help="Mark the threshold of this policy, and what its certificate covers."
)
@PRICES
@ENCODER_DIR
@_FOLDS
@_SPLIT
@_QUICK
@_RESAMPLES
@_SEED
@JSON
def report_verb(
    probe: Path, data: tuple[Path, ...], out: Path, policy_file: Path | None, as_json: bool, **options: Any
) -> None:
    """Write a self-contained HTML page that shows what PROBE does on DATA, and its pictures as files beside it."""
    from router.tuning.reporting.report import write_report

    files, evaluation_options = _pair_files(probe, data, options), _evaluation_options(options)
    with progress_bar("encoding") as on_progress:
        page = write_report(files, out, evaluation_options, policy_file, on_progress)
    if as_json:
        print_json({"page": str(page)})
    else:
        click.echo(f"Wrote {page}.")


@click.command("export-encoder", short_help="Export an encoder so that it runs without torch.")
@output_option("The folder to write the encoder to.", folder=True)
@ENCODER
@click.option("--encoder-dir", type=PATH, help="The folder that holds the original files of the encoder.")
@click.option(
    "--parity", multiple=True, type=PATH, metavar="DATA", help="Outcomes to compare the routing on; repeatable."
)
@click.option("--weak", metavar="MODEL", help="With --parity: the cheap model of DATA.")
@click.option("--strong", metavar="MODEL", help="With --parity: the expensive model of DATA.")
@JSON
def export_encoder_verb(out: Path, as_json: bool, **options: Any) -> None:
    """Export an encoder so that it runs without torch, and report how close its features are to the original's.

    With --parity, the recipe of the probe is fitted on the features of both. If the exported encoder routes worse or is
    calibrated worse, the exit status is 3.
    """
    from router.cli.steps.export_files import ExportOptions, export_encoder_files
    from router.tuning.reporting.export_summary import print_export

    with progress_bar("encoding") as on_progress:
        report = export_encoder_files(out, ExportOptions(**options), on_progress)
    if as_json:
        print_json(report.to_dict())
    else:
        print_export(report, stdout())
    if report.routing is not None and not report.routing.passed:
        raise SystemExit(NOT_CERTIFIED)


_PREVIEW_GROUPS = {
    "What to preview": ("policy_file", "profile", "format", "columns", "strong"),
    "What to show": ("html", "no_text", "show", "as_json"),
    "How to compute": ("resamples", "seed", "encoder_dir"),
}


@click.command("preview", cls=GroupedCommand, groups=_PREVIEW_GROUPS)
@click.argument("log", metavar="LOG...", nargs=-1, required=True, type=PATH)
@click.option("--policy", "policy_file", required=True, type=PATH, help="The policy file.")
@click.option("--profile", metavar="NAME", help="Preview this profile instead of the rule of the policy.")
@LOG_FORMAT
@COLUMNS
@click.option(
    "--strong", metavar="CANDIDATE", help="The candidate that savings are measured against. Default: the last tier."
)
@click.option("--html", type=PATH, metavar="FILE", help="Also write one self-contained HTML page.")
@click.option("--no-text", is_flag=True, help="Show no prompts beside the decisions to read.")
@click.option(
    "--show",
    default=5,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="The number of decisions of each sort to show.",
)
@click.option("--force", is_flag=True, help="Replace an existing page.")
@_RESAMPLES
@_SEED
@ENCODER_DIR
@JSON
def preview_verb(log: tuple[Path, ...], policy_file: Path, as_json: bool, **options: Any) -> None:
    """Show what a policy would have done with a log.

    The answer says who would have answered how much, at what cost, and which decisions were close. LOG is a log of
    prompts or chats, in files or folders of any format that `elle import` knows, or plain rows with a prompt or with
    messages. No model is asked, and no key and no label is needed. Sessions are replayed request by request with the
    times of the log, and costs count the prompt caches of the providers. What the costs rest on is listed.
    """
    from router.cli.steps.preview_files import PreviewFiles, preview_files
    from router.tuning.previewing.preview import PreviewOptions
    from router.tuning.previewing.preview_text import print_preview
    from router.tuning.previewing.savings import Resampling

    html = options["html"]
    if html is not None:
        require_free(html, folder=False, force=options["force"])
        require_other_than_input(click.get_current_context(), html)
    files = PreviewFiles(log, policy_file, options["format"], options["columns"], options["profile"], html)
    resampling = Resampling(options["resamples"], options["seed"])
    wanted = PreviewOptions(
        options["strong"], options["show"], not options["no_text"], resampling, options["encoder_dir"]
    )
    with progress_bars() as on_progress:
        found = preview_files(files, wanted, on_progress)
    if as_json:
        print_json(found.to_dict())
    else:
        print_preview(found, stdout())
    if html is not None:
        click.echo(f"Wrote {html}.", err=True)

"""The verbs of `elle` that lead from outcomes to a policy: import outcomes, fit a probe, tune a policy with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.cli.options import (
    COLUMNS,
    ENCODER,
    ENCODER_DIR,
    ENGINE_NAMES,
    FORMAT_NAMES_OR_FILES,
    JSON,
    PATH,
    PRICES,
    FiniteRange,
    GroupedCommand,
    engine_options,
    output_option,
    require_other_than_input,
    seed_option,
    split_names,
)
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, stdout

_DEFAULT = click.core.ParameterSource.DEFAULT

_IMPORT_GROUPS = {
    "What the columns are": ("columns",),
    "What the scores are": ("scores", "score_name", "score_map", "score_range", "scale"),
    "Output": ("out", "force", "as_json"),
}


@click.command(
    "import", cls=GroupedCommand, groups=_IMPORT_GROUPS, short_help="Convert outcomes of other programs into our form."
)
@click.argument(
    "paths", metavar="[FORMAT] IN...", nargs=-1, required=True, type=PATH, shell_complete=FORMAT_NAMES_OR_FILES
)
@click.option("--out", required=True, type=PATH, help="The file to write, .parquet or .jsonl.")
@click.option("--scores", type=PATH, help="A file of ids and scores, for logs that hold no scores.")
@click.option("--score-name", metavar="NAME", help="The name of the score to read, if the source has several.")
@click.option(
    "--score-map",
    multiple=True,
    metavar="WORD=QUALITY,...",
    help="The quality, 0 to 1, that each word stands for: good=1,bad=0,unsure=skip. Repeatable.",
)
@click.option(
    "--score-range",
    nargs=2,
    type=float,
    metavar="WORST BEST",
    help="The worst and the best score, as in: 1 5. If less is better: 1 0.",
)
@click.option("--scale", metavar="WORST..BEST", help="The same as --score-range, as people write it: 1..5.")
@COLUMNS
@click.option("--force", is_flag=True, help="Replace an existing file.")
@JSON
def import_verb(paths: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Convert outcomes that other programs keep into the form that `elle fit`, `tune` and `evaluate` read.

    IN are files, or folders that hold them. Without FORMAT, the format is recognised by the columns. FORMAT is one of
    routellm, routerbench, mmlu-pro, lm-eval, promptfoo, openai-evals, openai-batch, openai-stored, anthropic-batch,
    litellm-spend-logs, langfuse, langsmith, phoenix, helicone, braintrust, votes and table. The command says what it
    took as the score. If it cannot know how good a score is, it asks for --score-map or --score-range. Rows that cannot
    be used are left out, counted, and listed in a file beside --out.
    """
    from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
    from router.tuning.outcomes.adapters.spelled_scores import parse_scale
    from router.tuning.outcomes.adapters.summary import print_import

    require_other_than_input(click.get_current_context(), out)
    scale = options.pop("scale")
    if scale is not None:
        if options["score_range"] is not None or (span := parse_scale(scale)) is None:
            raise click.UsageError(f"give one --scale, as in 1..5, or --score-range; got {scale!r}.")
        options["score_range"] = span
    # A first word that is no file names the format; if it is no format either, the message names the nearest one.
    named = len(paths) > 1 and not paths[0].exists()
    format_name, files = (str(paths[0]), paths[1:]) if named else (None, paths)
    summary = import_outcomes(format_name, files, out, ImportOptions(**options))
    if as_json:
        print_json(summary.to_dict())
    else:
        print_import(summary, stdout())


_FIT_GROUPS = {
    "What to fit": ("models", "encoder", "encoder_dir", "name", "kind_names"),
    "What to keep apart": ("holdout", "seed"),
    "From an old probe": ("prior", "add", "keep_statistics"),
    "How to compute": ENGINE_NAMES,
    "Output": ("out", "force", "as_json"),
}


@click.command("fit", cls=GroupedCommand, groups=_FIT_GROUPS, short_help="Fit a probe to outcomes.")
@click.argument("data", nargs=-1, required=True, type=PATH)
@output_option("The folder to write the probe to.", folder=True)
@click.option(
    "--models", metavar="A,B,...", help="The models to fit, separated by commas. Default: all models of the data."
)
@ENCODER
@ENCODER_DIR
@click.option("--name", metavar="NAME", help="The name of the probe. Default: the name of its folder.")
@click.option(
    "--kind-names",
    type=PATH,
    metavar="FILE",
    help="A YAML or JSON file of names in words for the kinds of request: one for each group of the column group. "
    "Default: the groups themselves.",
)
@click.option(
    "--holdout",
    metavar="SHARE|latest:SHARE",
    default="0",
    show_default=True,
    help="Leave rows out of the fit, for `elle tune` to certify with: a share of them, or latest:20% for the newest.",
)
@seed_option("The seed of the folds and of the rows that are left out.")
@click.option(
    "--prior",
    type=PATH,
    metavar="PROBE",
    help="Adapt this probe to DATA, which must hold at least 50 labels of each model.",
)
@click.option(
    "--add",
    metavar="MODEL",
    help="Instead of adapting --prior, add this model to it from at least 10 labels; 50 are a good number.",
)
@click.option(
    "--keep-statistics",
    is_flag=True,
    help="Store sums of the fit, so that the probe can be a --prior later. They hold no prompt.",
)
@engine_options
@JSON
def fit_verb(
    data: tuple[Path, ...],
    out: Path,
    models: str | None,
    add: str | None,
    engine: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a probe to the outcomes DATA: parquet, JSONL or CSV with the columns prompt, model and score.

    If DATA have a column group, the probe also knows its groups as kinds of request: a decision says which of them a
    prompt is nearest to.

    With --prior, the statistics of an old fit with --keep-statistics replace the labels that DATA does not have. With
    --prior and --add, a model joins a probe from a few labels, and the probe's other models stay as they are.
    """
    if add is not None:
        _add_model(data, out, add, as_json)
        return
    from router.cli.steps.fit_files import FitOptions, fit_files
    from router.tuning.reporting.fit_summary import print_fit

    fit_options = FitOptions(models=split_names(models), engine=engine, **options)
    with progress_bar("encoding") as on_progress:
        summary = fit_files(data, out, fit_options, on_progress)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_fit(summary, stdout())


def _add_model(data: tuple[Path, ...], out: Path, add: str, as_json: bool) -> None:
    """Do what `elle fit --add` does, and refuse the options that have no meaning with it."""
    from probes.errors import DataError
    from router.cli.steps.add_files import AddOptions, add_files
    from router.tuning.reporting.add_summary import print_added

    ctx = click.get_current_context()
    given = {name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) != _DEFAULT}
    ours = ("models", "holdout", "keep_statistics", "kind_names", *ENGINE_NAMES)
    if refused := [name for name in ours if name in given]:
        listed = " and ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise DataError(f"--add leaves the rest of the probe as it is, from few labels, so {listed} must not be given.")
    if "prior" not in given:
        raise DataError("--add needs --prior PROBE, the probe to add the model to.")
    options = {name: given[name] for name in ("prior", "encoder", "encoder_dir", "name", "seed") if name in given}
    with progress_bar("encoding") as on_progress:
        summary = add_files(data, out, AddOptions(add=add, **options), on_progress)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_added(summary, stdout())


_TUNE_GROUPS = {
    "Targets": ("max_loss", "min_quality", "max_strong_share", "max_cost_usd_per_1k", "profiles"),
    "Candidates": ("weak", "strong", "models", "candidates", "reference", "prices"),
    "Certificate": ("calibration", "about", "confidence", "bound", "max_request_usd", "sessions", "valid_days"),
    "The policy": ("score", "rule", "out", "force", "allow_uncertified"),
    "Further answers": ("by", "plan", "as_json"),
}


@click.command("tune", cls=GroupedCommand, groups=_TUNE_GROUPS, short_help="Tune a policy to a target and certify it.")
@click.argument("paths", metavar="[PROBE] DATA...", nargs=-1, required=True, type=PATH)
@click.option(
    "--score",
    metavar="COLUMN",
    help="Decide by a score that callers send, which this column of DATA holds, instead of by a PROBE.",
)
@click.option("--weak", metavar="MODEL", help="The cheap model; needs --strong.")
@click.option("--strong", metavar="MODEL", help="The expensive model, which is the reference; needs --weak.")
@click.option(
    "--models",
    metavar="A,B,...",
    help="Instead of --weak and --strong: the models, separated by commas, cheapest first. The last one is the "
    "reference.",
)
@click.option("--candidates", type=PATH, help="Instead of --weak and --strong: a policy file whose candidates to take.")
@click.option(
    "--reference",
    metavar="MODEL",
    help="The model against which losses are measured, and which answers if the router abstains. Default: the last "
    "model.",
)
@click.option("--max-loss", type=float, help="The mean quality lost against the reference is at most this, 0 to 1.")
@click.option("--min-quality", type=float, help="The mean quality is at least this, 0 to 1.")
@click.option("--max-strong-share", type=float, help="The reference answers at most this share of the prompts, 0 to 1.")
@click.option("--max-cost-usd-per-1k", type=float, help="1,000 requests cost at most this many USD on average.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME=MAX_LOSS",
    help="Add a rule with a --max-loss of its own, which callers choose by its name; repeatable.",
)
@click.option(
    "--calibration",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Certify with all rows of this file; its requests must be other ones than those of the fit. Repeatable.",
)
@click.option(
    "--about",
    type=click.Choice(["people", "judge"]),
    help="Whose opinion the certificate is about: people (human_score in the data) or what the scores say. Default: "
    "people if the data have human grades.",
)
@click.option(
    "--confidence", default=0.95, show_default=True, help="The probability that all certified targets hold together."
)
@click.option(
    "--rule",
    type=click.Choice(["gain", "cost"]),
    help="The kind of the rule. Default: cost for three models or more if all prices are known, else gain.",
)
@PRICES
@click.option(
    "--max-request-usd",
    type=FiniteRange(0, min_open=True),
    help="For a target on cost: the most that one request can cost. Default: the price of 32,768 input and 4,096 "
    "output tokens.",
)
@click.option(
    "--bound",
    type=click.Choice(["ternary", "betting"]),
    help="The bound on the mean loss: ternary for scores of 0 and 1, betting for graded scores. Default: ternary if "
    "the fit had only scores of 0 and 1.",
)
@click.option(
    "--sessions",
    type=click.Choice(["ignore", "hold"]),
    default="ignore",
    show_default=True,
    help="Whether the policy lets a session hold its model; the certificate does not cover requests that are held.",
)
@click.option("--valid-days", default=90.0, show_default=True, help="The days after which the certificate expires.")
@click.option(
    "--by",
    type=click.Choice(["group", "task"]),
    help="Also certify a threshold for each group, or for each task, of the data separately.",
)
@click.option("--plan", is_flag=True, help="Also estimate what more labels would achieve.")
@output_option("The policy file to write.", required=False)
@click.option("--allow-uncertified", is_flag=True, help="Write a policy without a certificate if none is possible.")
@ENCODER_DIR
@JSON
def tune_verb(paths: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Tune a policy on PROBE to targets, and certify it with outcomes that the probe was not fitted on.

    If DATA is the file of the fit, the policy is certified with the rows that --holdout left out. If DATA holds other
    requests, it is certified with the rows whose text the fit did not see. With --calibration, it is certified with all
    rows of that file; DATA is then only used for defaults, and may be absent.

    With --score there is no PROBE: the policy decides by a number that each request carries. Its maps to risks are
    fitted on 30 % of DATA, and the other rows certify it; or all DATA fit them, with --calibration.

    If the targets cannot be certified with these data, no policy file is written, and the exit status is 3. Every
    attempt is recorded in PROBE.tune-log.jsonl, or beside the first file of DATA.
    """
    from router.tuning.certifying.results.result_json import result_to_dict
    from router.tuning.certifying.results.result_table import print_tuning_result
    from router.tuning.certifying.tune import TuneFiles, tune_command

    probe, data = (None, paths) if options["score"] is not None else (paths[0], paths[1:])
    if probe is None and (folders := [path for path in paths if path.is_dir()]):
        raise click.UsageError(f"with --score give files of outcomes only, got the folder {folders[0]}.")
    files = TuneFiles(probe, data, out=options.pop("out"), encoder_dir=options.pop("encoder_dir"))
    settings = _tune_settings(options)
    with progress_bar("encoding") as on_progress:
        result = tune_command(files, settings, on_progress)
    if as_json:
        print_json(result_to_dict(result))
    else:
        print_tuning_result(result, stdout())
    if not result.certified:
        raise SystemExit(NOT_CERTIFIED)


def _tune_settings(options: dict[str, Any]) -> Any:
    """Return the settings that these options of `elle tune` ask for."""
    from router.tuning.certifying.settings import TuneSettings
    from router.tuning.certifying.targets import Target

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
        models=(weak, strong) if weak else split_names(models) or (),
        calibration=options.pop("calibration"),
        **options,
    )

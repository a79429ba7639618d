"""The `elle` command. JSON on stdout with --json, tables for people otherwise, logs and progress on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from probes.errors import ProbesError
from router import cli_probes
from router.errors import InvalidRequestError, RouterError

if TYPE_CHECKING:
    from router.tuning.features import Progress

_PATH = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _stdout() -> Console:
    # Without a terminal rich falls back to 80 columns and cuts tables.
    return Console() if sys.stdout.isatty() else Console(width=160)


#: Exit status of `elle tune` where the data do not allow a certificate; 1 is an error, 2 wrong usage.
NOT_CERTIFIED = 3


class _Command(click.Group):
    """Errors raised on purpose become one line on stderr and exit status 1; ours are shown, never hidden."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (RouterError, ProbesError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log more, to stderr.")
def cli(verbose: bool) -> None:
    """Decide which model answers, by calibrated risk."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


@cli.command()
@click.option(
    "--policy", "policies", type=_PATH, multiple=True, help="Policy file; repeatable, the first is the default."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no authentication."
)
@click.option("--port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes on the same port.")
@click.option("--threads", type=click.IntRange(1), help="Encoder threads of a process; cores / workers unless set.")
@click.option("--max-pending", type=click.IntRange(1), help="Prompts that may wait; 32 per thread unless set.")
@click.option("--cache-entries", default=10_000, show_default=True, type=click.IntRange(0), help="Prompts remembered.")
@click.option("--max-prompt-bytes", default=512 * 1024, show_default=True, type=click.IntRange(1))
@click.option("--max-sessions", default=50_000, show_default=True, type=click.IntRange(0), help="Remembered at most.")
@click.option("--session-ttl-s", default=3600.0, show_default=True, type=click.FloatRange(0), help="Idle ones expire.")
@click.option("--drain-s", default=10.0, show_default=True, type=click.FloatRange(0), help="Grace after SIGTERM.")
def serve(policies: tuple[Path, ...], workers: int, **options: Any) -> None:
    """Serve over gRPC until SIGTERM. Without --policy: the embedded default, answered by canned text."""
    from router.server import ServerSettings, Serving, serve_forever
    from router.workers import serve_workers

    def on_ready(running: Serving) -> None:
        names = ", ".join(running.router.policies)
        click.echo(f"serving {names} on {running.address}", err=True)

    settings = ServerSettings(policies=policies, **options)
    if workers == 1:
        asyncio.run(serve_forever(settings, on_ready))
    else:
        serve_workers(settings, workers, lambda at: click.echo(f"serving on {at} in {workers} processes", err=True))


@cli.command()
@click.argument("text", required=False)
@click.option("--chat", type=_PATH, help="File with an OpenAI chat body instead of TEXT; - for stdin.")
@click.option("--policy", "policy_file", type=_PATH, help="Policy file; the embedded default unless set.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@click.option("--profile", metavar="NAME", help="Of the policy's profiles.")
@click.option("--max-risk", type=float, help="Take the cheapest candidate within this risk.")
@click.option("--max-cost-usd", type=float, help="Bound on the expected cost of the answer.")
@click.option("--region", metavar="TAG", help="Only candidates of this region may answer.")
@click.option("--allow", multiple=True, metavar="CANDIDATE", help="Only these may answer; repeatable.")
@click.option("--deny", multiple=True, metavar="CANDIDATE", help="These may not answer; repeatable.")
@click.option("--pin", metavar="CANDIDATE", help="This one answers.")
@_JSON
def decide(
    text: str | None, chat: Path | None, policy_file: Path | None, encoder_dir: Path | None, as_json: bool, **asked: Any
) -> None:
    """Decide who would answer TEXT (- for stdin). Contacts no provider."""
    from router.pipeline import Router
    from router.render import decision_to_dict, print_decision
    from router.types import Overrides

    overrides = Overrides(
        max_risk=asked["max_risk"],
        max_cost_usd=asked["max_cost_usd"],
        allowed_candidates=asked["allow"],
        denied_candidates=asked["deny"],
        pin=asked["pin"],
        require_region=asked["region"],
    )
    query = _query(text, chat, overrides)
    router = Router.from_files(*([policy_file] if policy_file else []), encoder_dir=encoder_dir)
    if asked["profile"] is not None:
        name = f"{router.policy(None).ref.name}:{asked['profile']}"
        query = dataclasses.replace(query, overrides=dataclasses.replace(overrides, policy=name))
    decision = router.decide(query)
    if as_json:
        _print_json(decision_to_dict(decision))
    else:
        print_decision(decision, _stdout())


def _query(text: str | None, chat: Path | None, overrides: Any) -> Any:
    from router.types import RouteQuery

    if (text is None) == (chat is None):
        raise click.UsageError("give either TEXT or --chat FILE.")
    if chat is None:
        prompt = sys.stdin.read() if text == "-" else text
        return RouteQuery.from_prompt(prompt or "", overrides=overrides)
    try:
        body = json.loads(sys.stdin.read() if str(chat) == "-" else chat.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"--chat must be a JSON file: {error}.") from error
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise InvalidRequestError("--chat must hold a JSON object with a list `messages`.")
    parameters = {key: value for key, value in body.items() if key not in {"messages", "model", "stream"}}
    return RouteQuery(tuple(body["messages"]), overrides=overrides, parameters=parameters)


@cli.command()
@click.argument("data", nargs=-1, required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder to write the probe to.")
@click.option("--models", help="Comma-separated; all models of the data unless set.")
@click.option("--encoder", default="minilm-l6", show_default=True, help="Built-in name, or a .json encoder spec.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@click.option("--name", help="Name of the probe; the folder's unless set.")
@click.option("--holdout", default=0.0, show_default=True, help="Share of prompts to leave out, for `elle tune`.")
@click.option("--seed", default=0, show_default=True, help="Of the folds and of what is held out.")
@click.option("--prior", type=_PATH, metavar="PROBE", help="Adapt this probe to DATA, 50 labels of each model or more.")
@click.option("--keep-statistics", is_flag=True, help="Let the probe be a --prior later: sums of its fit, no prompt.")
@_JSON
def fit(data: tuple[Path, ...], out: Path, models: str | None, as_json: bool, **options: Any) -> None:
    """Fit a probe to outcomes DATA (parquet, JSONL or CSV: prompt, model, score).

    With --prior the statistics of an old fit, made with --keep-statistics, stand in for the labels that DATA lacks.
    """
    from router.tuning.fit import fit_command

    with _progress("encoding") as on_progress:
        summary = fit_command(data, out, models=_names(models), on_progress=on_progress, **options)
    if as_json:
        _print_json(summary.to_dict())
    else:
        summary.print(_stdout())


@cli.command()
@click.argument("probe", type=_PATH)
@click.argument("data", nargs=-1, required=True, type=_PATH)
@click.option("--weak", required=True, metavar="MODEL", help="The cheap model.")
@click.option("--strong", required=True, metavar="MODEL", help="The dear model.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Of the bootstrap.")
@click.option("--cv", "folds", type=click.IntRange(2), help="Refit the probe's recipe in this many folds of DATA.")
@click.option(
    "--split", type=click.Choice(["random", "group"]), default="random", show_default=True, help="Folds of --cv."
)
@click.option("--quick", is_flag=True, help="Only the baselines that need no fitting and no LiteLLM.")
@click.option("--seed", default=0, show_default=True)
@_JSON
def evaluate(probe: Path, data: tuple[Path, ...], weak: str, strong: str, as_json: bool, **options: Any) -> None:
    """Evaluate PROBE on DATA it has not seen: how well does it rank prompts by the gain of the strong model?

    With --cv, DATA may be what it was fitted on: its recipe is fitted anew on the other folds. The figures of a random
    split and of whole groups left out are then printed side by side.
    """
    from router.tuning.evaluate import evaluate_command

    with _progress("encoding") as on_progress:
        report = evaluate_command(probe, data, weak=weak, strong=strong, on_progress=on_progress, **options)
    if report.warning:
        click.echo(f"Warning: {report.warning}", err=True)
    if as_json:
        _print_json(report.to_dict())
    else:
        report.print(_stdout())


@cli.command()
@click.argument("probe", type=_PATH)
@click.argument("data", nargs=-1, required=True, type=_PATH)
@click.option("--weak", required=True, metavar="MODEL", help="The cheap model.")
@click.option("--strong", required=True, metavar="MODEL", help="The dear model.")
@click.option("--out", required=True, type=_PATH, help="Folder for the page and its pictures.")
@click.option("--policy", "policy_file", type=_PATH, help="Policy whose threshold is to be marked.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@click.option("--cv", "folds", type=click.IntRange(2), help="Refit the probe's recipe in this many folds of DATA.")
@click.option(
    "--split", type=click.Choice(["random", "group"]), default="random", show_default=True, help="Folds of --cv."
)
@click.option("--quick", is_flag=True, help="Only the baselines that need no fitting and no LiteLLM.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Of the bootstrap.")
@click.option("--seed", default=0, show_default=True)
def report(probe: Path, data: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Write one self-contained HTML page of what PROBE does on DATA, and its pictures beside it."""
    from router.tuning.report import report_command

    with _progress("encoding") as on_progress:
        page = report_command(probe, data, out, on_progress=on_progress, **options)
    click.echo(f"Wrote {page}.")


@cli.command("import")
@click.argument("kind")
@click.argument("paths", metavar="IN...", nargs=-1, required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="File to write, .parquet or .jsonl.")
@click.option("--scores", type=_PATH, help="File of id and score, for logs that hold no scores.")
@click.option("--score-name", help="Which of a Langfuse export's scores.")
@click.option("--score-range", nargs=2, type=float, metavar="LOW HIGH", help="What the scores run from and to.")
@_JSON
def import_(kind: str, paths: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Bring outcomes kept by other programs into the form that fit, tune and evaluate read.

    KIND: routellm, routerbench, mmlu-pro, openai-batch, litellm-spend-logs or langfuse. IN: its files, or folders of
    them.
    """
    from router.tuning.adapters import import_command

    summary = import_command(kind, paths, out, **options)
    if as_json:
        _print_json(summary.to_dict())
    else:
        summary.print(_stdout())


@cli.command()
@click.argument("probe", type=_PATH)
@click.argument("data", nargs=-1, required=True, type=_PATH)
@click.option("--weak", metavar="MODEL", help="The cheap model; with --strong.")
@click.option("--strong", metavar="MODEL", help="The dear model, the reference.")
@click.option("--models", help="Comma-separated, cheapest first, instead; the last is the reference.")
@click.option("--candidates", type=_PATH, help="Policy file to take the candidates from, instead.")
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
@click.option("--valid-days", default=90.0, show_default=True, help="Until the certificate expires.")
@click.option("--by-group", is_flag=True, help="Also certify each group of the data by itself.")
@click.option("--plan", is_flag=True, help="Also say what more labels would buy.")
@click.option("--out", type=_PATH, help="Policy file to write.")
@click.option("--allow-uncertified", is_flag=True, help="Write it without a certificate where none can be given.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@_JSON
def tune(probe: Path, data: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Tune a policy on PROBE to targets, certified with DATA that it was not fitted on.

    Exit status 3 and no policy file if that is not possible with these data.
    """
    from router.tuning.tune import tune_command

    rest = {name: options.pop(name) for name in ("out", "allow_uncertified", "encoder_dir")}
    settings = _tune_settings(options)
    with _progress("encoding") as on_progress:
        report = tune_command(probe, data, settings, on_progress=on_progress, **rest)
    if as_json:
        _print_json(report.to_dict())
    else:
        report.print(_stdout())
    if not report.certified:
        raise SystemExit(NOT_CERTIFIED)


def _tune_settings(options: dict[str, Any]) -> Any:
    from router.tuning.bench import TuneSettings
    from router.tuning.targets import Target

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
        models=(weak, strong) if weak else _names(models) or (),
        **options,
    )


@cli.command("export-encoder")
@click.option("--out", required=True, type=_PATH, help="Folder to write the bundle to.")
@click.option("--encoder", default="minilm-l6", show_default=True, help="Built-in name, or a .json encoder spec.")
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's original files are.")
@click.option("--parity", multiple=True, type=_PATH, metavar="DATA", help="Outcomes to compare routing on; repeatable.")
@click.option("--weak", metavar="MODEL", help="The cheap model of DATA.")
@click.option("--strong", metavar="MODEL", help="The dear model of DATA.")
@_JSON
def export_encoder(out: Path, as_json: bool, **options: Any) -> None:
    """Export an encoder to serve without torch, and report how close it stays to its reference.

    With --parity the probe's recipe is fitted on the features of both precisions. Exit status 3 if the exported one
    routes worse or is calibrated worse.
    """
    from router.tuning.export import export_command

    with _progress("encoding") as on_progress:
        report = export_command(out, on_progress=on_progress, **options)
    if as_json:
        _print_json(report.to_dict())
    else:
        report.print(_stdout())
    if report.routing is not None and not report.routing.passed:
        raise SystemExit(NOT_CERTIFIED)


@cli.command()
@click.argument("file", type=_PATH)
@click.option("--encoder-dir", type=_PATH, help="Where the encoder's files are.")
@_JSON
def validate(file: Path, encoder_dir: Path | None, as_json: bool) -> None:
    """Check a policy FILE with everything it names: probe, encoder, prices, keys."""
    from router.certificate import is_expired, say_certificate
    from router.loading import load_policy, missing_keys

    policy = load_policy(file)
    if policy.encoder_spec is not None:
        from probes.encoder import load_encoder

        load_encoder(policy.encoder_spec, encoder_dir)
    unset = missing_keys(policy)
    found = {
        "valid": True,
        "policy": policy.ref.name,
        "version": policy.ref.version,
        "digest": policy.ref.digest,
        "candidates": list(policy.rules.file.names),
        "probe": policy.probe_ref.digest if policy.probe_ref else None,
        "unset_key_variables": unset,
        "profiles": [served.ref.name for served in policy.profiles()],
        "certificate": policy.certificate.model_dump(mode="json") if policy.certificate else None,
        "certificate_expired": is_expired(policy.certificate) if policy.certificate else None,
    }
    if as_json:
        _print_json(found)
    else:
        click.echo(f"{file} is valid: policy {policy.ref.name}, candidates {', '.join(policy.rules.file.names)}.")
        for served in (policy, *policy.profiles()):
            click.echo(f"{served.ref.name}: {say_certificate(served.certificate)}.")
        for variable in unset:
            click.echo(f"note: {variable} is not set here; deciding works, answering will not.")


@cli.command()
def policy() -> None:
    """Print the embedded default policy, to start your own from."""
    from router.loading import DEFAULT_POLICY

    click.echo(DEFAULT_POLICY.read_text("utf-8"), nl=False)


@cli.command()
def demo() -> None:
    """Start the service, send it a dozen prompts, print what was decided, stop."""
    from router import demo as demonstration

    demonstration.main(_stdout())


@cli.command()
@_JSON
def version(as_json: bool) -> None:
    """Versions of this program and of what it runs on."""
    found = {"elle-router": _version("elle-router"), "python": platform.python_version()}
    found |= {
        name: _version(name)
        for name in ("grpcio", "protobuf", "numpy", "onnxruntime", "tokenizers", "torch", "transformers", "litellm")
    }
    if as_json:
        _print_json(found)
    else:
        click.echo("\n".join(f"{name} {value or 'not installed'}" for name, value in found.items()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Progress | None]:
    """A progress bar on stderr where a person watches; otherwise a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _progress_lines(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _progress_lines(label: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % 1000 == 0:
            click.echo(f"{label}: {done} of {total}", err=True)

    return report


for _command in cli_probes.COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Entry point of the `elle` command."""
    # A reader that goes away (`elle ... | head`) is no error of ours.
    try:
        cli()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

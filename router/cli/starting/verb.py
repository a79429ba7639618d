"""`elle start`: go the whole way from a log to a certified policy, with what is not given asked in the terminal."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.collecting import collect_options, is_confirmed, report_spending
from router.cli.options import JSON, PATH, FiniteRange, GroupedCommand, asking_options, require_free
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, spending_bar, stdout

if TYPE_CHECKING:
    from router.cli.starting.done_steps import StepDone
    from router.cli.starting.start import StartOptions

#: The port of the HTTP API in the command with which the policy is served.
_HTTP_PORT = 8080

_START_GROUPS = {
    "Which models": ("weak", "strong", "policy", "offline"),
    "The target": ("max_loss",),
    "Which prompts": ("n", "seed", "format", "encoder_dir"),
    "Grading": ("graders", "judges"),
    "Money and time": ("budget_usd", "max_calls", "max_output_tokens", "concurrency", "rates", "yes"),
    "Output": ("out", "as_json"),
}


class _NotCertified(click.ClickException):
    """Ends the verb with the exit status of an answer that is no."""

    exit_code = NOT_CERTIFIED


@click.command("start", cls=GroupedCommand, groups=_START_GROUPS, short_help="Go from a log to a certified policy.")
@click.argument("log", type=PATH)
@click.option("--strong", metavar="MODEL", help="The expensive model, which losses are measured against.")
@click.option("--weak", metavar="MODEL", help="The cheap model.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="The folder for all files.")
@click.option(
    "--policy", type=PATH, help="A policy file that describes --weak and --strong, if a model string is not enough."
)
@click.option("--offline", is_flag=True, help="Try it out with simulated models, without any key.")
@click.option(
    "--max-loss",
    default=0.02,
    show_default=True,
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="The mean quality lost against --strong is at most this.",
)
@click.option("--n", default=2000, show_default=True, type=click.IntRange(1), help="The number of prompts to ask.")
@asking_options
@JSON
def start_verb(log: Path, as_json: bool, **options: Any) -> None:
    """Go the whole way from a LOG of prompts to a policy that is certified on them and can be served.

    The steps are: import the log, plan and price, collect outcomes from both models, fit a probe, tune a policy,
    evaluate it, and write a report. What is not given is asked in the terminal. Each step writes its files into --out
    and is skipped when it is done, so the same command goes on where an earlier one stopped. The policy is
    DIR/policy.yaml. The exit status is 3 if --max-loss cannot be certified.
    """
    from rich.console import Console

    from router.cli.starting.start import Listener, NotCertifiedError, RefusedError, Start
    from router.collecting.collect import CollectionListener

    yes = options.pop("yes")
    start = _start_options(log, options, ask=sys.stdin.isatty() and not yes)
    # With --json the results at length are not wanted, and stdout is for the one JSON value.
    console = Console(quiet=True) if as_json else stdout()
    with progress_bar("encoding") as on_encoding, spending_bar("asking") as report:
        watch = CollectionListener(
            lambda plan: is_confirmed(plan, yes=yes), lambda at: report_spending(at, report), on_encoding
        )
        listener = Listener(lambda step: _say_step(step, err=as_json), watch, console, on_encoding)
        try:
            steps = Start(start, listener).steps()
        except RefusedError as error:
            raise click.Abort from error
        except NotCertifiedError as error:
            raise _NotCertified(str(error)) from error
    serve = shlex.join(["elle", "serve", "--policy", str(start.out / "policy.yaml"), "--http", str(_HTTP_PORT)])
    if as_json:
        print_json({"steps": [asdict(step) for step in steps], "serve": serve})
    else:
        click.echo(f"Serve it:\n\n    {serve}\n")
        click.echo(
            f"Then give an SDK of OpenAI's the base URL http://localhost:{_HTTP_PORT}/v1 and the model `auto`; "
            "gRPC is on port 50051."
        )


def _start_options(log: Path, options: dict[str, Any], *, ask: bool) -> StartOptions:
    from router.cli.starting.models import two_candidates
    from router.cli.starting.start import StartOptions

    out, offline, policy = options.pop("out"), options.pop("offline"), options.pop("policy")
    require_folder(out)
    names = {}
    for role, question in (
        ("strong", "The expensive model, as in openai/gpt-5"),
        ("weak", "The cheap model, as in openai/gpt-5-mini"),
    ):
        names[role] = options.pop(role) or _asked(f"--{role}", question, ask=ask)
    if ask and not offline and options["budget_usd"] is None:
        options["budget_usd"] = click.prompt("The most USD to spend", type=FiniteRange(0, min_open=True), err=True)
    weak, strong = two_candidates(names["weak"], names["strong"], policy, _say_note, offline=offline)
    max_loss, encoder_dir = options.pop("max_loss"), options["encoder_dir"]
    collecting = collect_options(None, options)
    if offline and collecting.graders:
        raise click.UsageError("--offline grades simulated answers by itself; leave --grader out.")
    return StartOptions(log, out, weak, strong, max_loss, collecting, offline, encoder_dir)


def require_folder(out: Path) -> None:
    """Raise DataError if the folder of `elle start` cannot be made, or holds files that `elle start` did not write."""
    from router.cli.starting.done_steps import STATE

    require_free(out, folder=True, force=(out / STATE).is_file())


def _asked(option: str, question: str, *, ask: bool) -> str:
    if not ask:
        raise click.UsageError(f"give {option}; there is no terminal to ask on.")
    return str(click.prompt(question, err=True))


def _say_note(note: str) -> None:
    click.echo(f"note: {note}", err=True)


def _say_step(step: StepDone, *, err: bool) -> None:
    done = " (done before)" if step.skipped else ""
    click.echo(f"{step.name}{done}: {step.said}", err=err)

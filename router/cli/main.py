"""Define the `elle` command and turn our own errors into one line on stderr.

Results go to stdout, as JSON with --json and as tables without; all else goes to stderr.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import sys
from typing import Any

import click

from probes.bounded.secrets import mask_secrets
from probes.errors import ProbesError
from router.cli import collecting, deciding, embeddings, judging, labelling, selecting, tuning
from router.cli.changing import policies
from router.cli.checking.verb import doctor_verb
from router.cli.options import JSON
from router.cli.output import print_json
from router.cli.running import canary, compare, drift, ledger, serve, tokens, top
from router.cli.starting import verb
from router.cli.updating import verbs as updating
from router.errors import RouterError

#: The titles under which `elle --help` lists the verbs: what a person wants, in the order in which they come to it.
TITLES = {
    "See what it does": ("demo", "decide", "explain", "preview"),
    "Serve": ("serve", "doctor", "policy", "validate", "token", "top"),
    "Fit it to your own traffic": (
        "start",
        "import",
        "collect",
        "label",
        "fit",
        "tune",
        "evaluate",
        "report",
        "label-task",
        "recalibrate",
        "forget",
    ),
    "Watch and change a running service": ("canary", "compare", "drift", "ledger"),
    "Work on embeddings": ("embed", "fit-pairs", "score", "select", "export-encoder"),
    "This program": ("version",),
}


#: The extra that brings a library which verbs import when they need it.
_EXTRA_OF = {
    **dict.fromkeys(("pyarrow", "sklearn", "scipy", "matplotlib"), "train"),
    **dict.fromkeys(("torch", "transformers"), "torch"),
}


class _MainGroup(click.Group):
    """A click group whose help lists the verbs under titles, and that prints an error of ours in one line on stderr.

    A library of an extra that is not installed is such an error. After one it exits with status 1. Every other
    exception is a defect of ours: it keeps its traceback, so that it is noticed and reported.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into `formatter`, one section for each title."""
        titled = {name for names in TITLES.values() for name in names}
        for title, names in (TITLES | {"Other verbs": tuple(sorted(self.commands.keys() - titled))}).items():
            if not names:
                continue
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(60)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (RouterError, ProbesError) as error:
            # A message may quote half of a surrogate pair from a file, which no terminal can be sent.
            message = mask_secrets(str(error)).encode("utf-8", "backslashreplace").decode()
            raise click.ClickException(message) from error
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in _EXTRA_OF:
                raise
            install = f"pip install 'elle-router[{_EXTRA_OF[library]}]'"
            raise click.ClickException(
                f"this needs {library}, which is not installed; install it with `{install}`."
            ) from error


@click.group(cls=_MainGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Write more of the log to stderr.")
def cli(verbose: bool) -> None:
    """Decide which model answers a request, by the calibrated risk of every model.

    Begin with `elle demo`. Each verb has a --help of its own, and prints JSON with --json. The exit status is 0 if all
    went well, 1 after an error, 2 after wrong usage, and 3 if the answer is no or something was left out.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


@cli.command("version", short_help="Print the versions of this program and its libraries.")
@JSON
def version_verb(as_json: bool) -> None:
    """Print the versions of this program and of the libraries that it uses."""
    found = {"elle-router": _version("elle-router"), "python": platform.python_version()}
    names = ("grpcio", "protobuf", "numpy", "onnxruntime", "tokenizers", "torch", "transformers", "litellm")
    found |= {name: _version(name) for name in names}
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(f"{name} {value or 'not installed'}" for name, value in found.items()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


for _command in (
    serve.serve_verb,
    doctor_verb,
    tokens.token_verb,
    top.top_verb,
    drift.drift_verb,
    ledger.ledger_verb,
    compare.compare_verb,
    canary.canary_verb,
    *deciding.DECIDING_VERBS,
    policies.policy_verb,
    *verb.STARTING_VERBS,
    *collecting.COLLECTING_VERBS,
    *tuning.TUNING_VERBS,
    *labelling.LABELLING_VERBS,
    *updating.UPDATING_VERBS,
    *judging.JUDGING_VERBS,
    *embeddings.EMBEDDING_VERBS,
    *selecting.SELECTING_VERBS,
):
    cli.add_command(_command)


def main() -> None:
    """Run the `elle` command; this is its entry point."""
    # A reader may go away before all is written, as in `elle ... | head`; that is no error of ours.
    try:
        cli()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

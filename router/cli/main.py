"""Define the `elle` command and turn our own errors into one line on stderr.

Results go to stdout, as JSON with --json and as tables without; all else goes to stderr.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import io
import logging
import os
import platform
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import click

from probes.bounded.secrets import mask_secrets
from probes.bounded.text import os_fault
from probes.errors import ProbesError
from router.cli.options import JSON
from router.cli.output import answering_in_json, print_json
from router.errors import RouterError
from router.quoting import quoted

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
    "Watch and change a running service": ("admin", "canary", "compare", "drift", "ledger"),
    "Work on embeddings": ("embed", "fit-pairs", "score", "select", "export-encoder"),
    "This program": ("version",),
}


#: The extra that brings a library which verbs import when they need it.
_EXTRA_OF = {
    **dict.fromkeys(("pyarrow", "sklearn", "scipy", "matplotlib"), "train"),
    **dict.fromkeys(("torch", "transformers"), "torch"),
}


#: The module and the name of each verb. It is imported when it is used, so that `elle serve` starts soon.
PLACES = {
    "admin": ("router.cli.changing.admin", "admin_verb"),
    "canary": ("router.cli.running.canary", "canary_verb"),
    "collect": ("router.cli.collecting", "collect_verb"),
    "compare": ("router.cli.running.compare", "compare_verb"),
    "decide": ("router.cli.deciding", "decide_verb"),
    "demo": ("router.cli.deciding", "demo_verb"),
    "doctor": ("router.cli.checking.verb", "doctor_verb"),
    "drift": ("router.cli.running.drift", "drift_verb"),
    "embed": ("router.cli.embeddings", "embed_verb"),
    "evaluate": ("router.cli.judging", "evaluate_verb"),
    "explain": ("router.cli.deciding", "explain_verb"),
    "export-encoder": ("router.cli.judging", "export_encoder_verb"),
    "fit": ("router.cli.tuning", "fit_verb"),
    "fit-pairs": ("router.cli.embeddings", "fit_pairs_verb"),
    "forget": ("router.cli.updating.verbs", "forget_verb"),
    "import": ("router.cli.tuning", "import_verb"),
    "label": ("router.cli.labelling", "label_answers_verb"),
    "label-task": ("router.cli.labelling", "label_task_verb"),
    "ledger": ("router.cli.running.ledger", "ledger_verb"),
    "policy": ("router.cli.changing.policies", "policy_verb"),
    "preview": ("router.cli.judging", "preview_verb"),
    "recalibrate": ("router.cli.updating.verbs", "recalibrate_verb"),
    "report": ("router.cli.judging", "report_verb"),
    "score": ("router.cli.embeddings", "score_verb"),
    "select": ("router.cli.selecting", "select_group"),
    "serve": ("router.cli.running.serve", "serve_verb"),
    "start": ("router.cli.starting.verb", "start_verb"),
    "token": ("router.cli.running.tokens", "token_verb"),
    "top": ("router.cli.running.top", "top_verb"),
    "tune": ("router.cli.tuning", "tune_verb"),
    "validate": ("router.cli.deciding", "validate_verb"),
}


class _Verbs(MutableMapping[str, click.Command]):
    """The verbs by their names, each of which is imported when somebody asks for it."""

    def __init__(self) -> None:
        self._here: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._here:
            module, variable = PLACES[name]
            self._here[name] = getattr(importlib.import_module(module), variable)
        return self._here[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._here[name] = command

    def __delitem__(self, name: str) -> None:
        del self._here[name]

    def __iter__(self) -> Iterator[str]:
        # In an order that is the same in every process.
        return iter({**PLACES, **self._here})

    def __len__(self) -> int:
        return len({**PLACES, **self._here})


#: What the system says of a disk that is full, read-only or broken.
_FAULTS_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}


class _MainGroup(click.Group):
    """A click group whose help lists the verbs under titles, and that prints an error of ours in one line on stderr.

    A library of an extra that is not installed is such an error, and so is a file or a disk that cannot be used. After
    one it exits with status 1. Every other exception is a defect of ours: it keeps its traceback, so that it is noticed
    and reported.
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
        """Run the verb, and answer in JSON if it has --json."""
        with answering_in_json(ctx):
            return self._invoke_plainly(ctx)

    def _invoke_plainly(self, ctx: click.Context) -> Any:
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
        except OSError as error:
            if (fault := _fault_of_machine(error)) is None:
                raise
            raise click.ClickException(fault) from error


def _fault_of_machine(error: OSError) -> str | None:
    """Return in words what the machine does not allow; None for an error that says nothing about a file or a disk."""
    if error.filename is not None:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return f"cannot use {quoted(path)}: {os_fault(error)}. Check the path, and the rights to it."
    if error.errno in _FAULTS_OF_DISKS:
        return f"a file cannot be written: {os_fault(error)}. Make room on the disk, or write to another one."
    return None


@click.group(cls=_MainGroup, commands=_Verbs(), context_settings={"help_option_names": ["-h", "--help"]})
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


def main() -> None:
    """Run the `elle` command and end the process."""
    # A terminal that is not UTF-8, as with LANG=de_DE.ISO-8859-1, is shown the code of a letter that it lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # A reader may go away before all is written, as in `elle ... | head`; that is no error of ours.
    try:
        cli()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

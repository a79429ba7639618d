"""The `elle` command. JSON on stdout with --json, tables for people otherwise, logs and progress on stderr."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import sys
from typing import Any

import click

from probes.errors import ProbesError
from router.cli import embeddings as cli_probes
from router.cli import selecting as cli_selecting
from router.cli import serving as cli_serve
from router.cli import tuning as cli_tuning
from router.cli.common import JSON, print_json
from router.errors import RouterError


class _Command(click.Group):
    """Errors raised on purpose become one line on stderr and exit status 1; ours are shown, never hidden."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (RouterError, ProbesError) as error:
            # What is quoted of a file may hold half of a surrogate pair, which no terminal can be sent.
            raise click.ClickException(str(error).encode("utf-8", "backslashreplace").decode()) from error


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
@JSON
def version(as_json: bool) -> None:
    """Versions of this program and of what it runs on."""
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


for _command in (*cli_serve.COMMANDS, *cli_tuning.COMMANDS, *cli_probes.COMMANDS, *cli_selecting.COMMANDS):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the `elle` command."""
    # A reader that goes away (`elle ... | head`) is no error of ours.
    try:
        cli()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

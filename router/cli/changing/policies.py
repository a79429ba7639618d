"""`elle policy`: print a policy file to start from, and the group that holds the verbs of versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from router.cli.changing.versions import VERSION_VERBS
from router.cli.options import PATH

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _what_to_print(verb: _Function) -> _Function:
    for option in (
        click.option("--example", is_flag=True, help="Print the example of Mixtral-8x7B and GPT-4 Turbo."),
        click.option(
            "--from-litellm", type=PATH, metavar="CONFIG", help="Take the models from `model_list` of this file."
        ),
    ):
        verb = option(verb)
    return verb


@click.group(
    "policy", invoke_without_command=True, short_help="Start a policy file; keep, compare and activate versions."
)
@_what_to_print
@click.pass_context
def policy_verb(ctx: click.Context, from_litellm: Path | None, example: bool) -> None:
    """Keep versions of policies in a store, compare them, and say which of them the service decides by.

    Without a command this prints a policy file to start from, as `elle policy new` does.
    """
    if ctx.invoked_subcommand is None:
        _print_policy(from_litellm, example)
    elif from_litellm is not None or example:
        raise click.UsageError("--from-litellm and --example belong behind `elle policy new`.")


@policy_verb.command("new", short_help="Print a policy file to start your own from.")
@_what_to_print
def policy_new_verb(from_litellm: Path | None, example: bool) -> None:
    """Print a policy file to start your own from: the embedded policy, or one for the models that LiteLLM serves."""
    _print_policy(from_litellm, example)


def _print_policy(from_litellm: Path | None, example: bool) -> None:
    from router.policies.loading import DEFAULT_POLICY, EXAMPLE_POLICY

    if from_litellm is not None and example:
        raise click.UsageError("--from-litellm and --example exclude each other.")
    if from_litellm is not None:
        from router.gateways.litellm_config import policy_from_litellm

        click.echo(policy_from_litellm(from_litellm), nl=False)
        return
    click.echo((EXAMPLE_POLICY if example else DEFAULT_POLICY).read_text("utf-8"), nl=False)


for _verb in VERSION_VERBS:
    policy_verb.add_command(_verb)

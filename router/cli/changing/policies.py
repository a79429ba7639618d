"""`elle policy`: print a policy file to start from, and the group that holds the verbs of versions."""

from __future__ import annotations

from pathlib import Path

import click

from router.cli.changing.versions import VERSION_VERBS
from router.cli.options import JSON, PATH
from router.cli.output import print_json


@click.group("policy", short_help="Start a policy file; keep, compare and activate versions.")
def policy_verb() -> None:
    """Keep versions of policies in a store, compare them, and say which of them the service decides by."""


@policy_verb.command("new", short_help="Print a policy file to start your own from.")
@click.option("--example", is_flag=True, help="Print the example of Mixtral-8x7B and GPT-4 Turbo.")
@click.option("--from-litellm", type=PATH, metavar="CONFIG", help="Take the models from `model_list` of this file.")
@JSON
def policy_new_verb(example: bool, from_litellm: Path | None, as_json: bool) -> None:
    """Print a policy file to start your own from: the embedded policy, or one for the models that LiteLLM serves."""
    from router.policies.loading import DEFAULT_POLICY, EXAMPLE_POLICY

    if from_litellm is not None and example:
        raise click.UsageError("--from-litellm and --example exclude each other.")
    if from_litellm is not None:
        from router.gateways.litellm_config import policy_from_litellm

        text = policy_from_litellm(from_litellm)
    else:
        text = (EXAMPLE_POLICY if example else DEFAULT_POLICY).read_text("utf-8")
    if as_json:
        print_json({"text": text})
    else:
        click.echo(text, nl=False)


for _verb in VERSION_VERBS:
    policy_verb.add_command(_verb)

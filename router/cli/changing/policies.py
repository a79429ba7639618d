"""The verbs of `elle policy`, which print a policy file to start from."""

from __future__ import annotations

from pathlib import Path

import click

from router.cli.options import PATH


@click.command("policy", short_help="Print a policy file to start your own from.")
@click.option("--from-litellm", type=PATH, metavar="CONFIG", help="Take the models from `model_list` of this file.")
@click.option("--example", is_flag=True, help="Print the example of Mixtral-8x7B and GPT-4 Turbo.")
def policy_verb(from_litellm: Path | None, example: bool) -> None:
    """Print a policy file to start your own from: the embedded policy, or one for the models that LiteLLM serves."""
    from router.policies.loading import DEFAULT_POLICY, EXAMPLE_POLICY

    if from_litellm is not None and example:
        raise click.UsageError("--from-litellm and --example exclude each other.")
    if from_litellm is not None:
        from router.gateways.litellm_config import policy_from_litellm

        click.echo(policy_from_litellm(from_litellm), nl=False)
        return
    click.echo((EXAMPLE_POLICY if example else DEFAULT_POLICY).read_text("utf-8"), nl=False)

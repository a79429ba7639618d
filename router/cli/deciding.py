"""The verbs of `elle` that decide a prompt, and those that prepare a policy file for the service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, GroupedCommand, with_options
from router.cli.output import INCOMPLETE, print_json, stdout

if TYPE_CHECKING:
    from router.policies.loading import ServedPolicy

_DECIDE_GROUPS = {
    "The prompt": ("chat",),
    "The policy": ("policy_file", "profile", "encoder_dir"),
    "What the caller asks for": ("max_risk", "max_cost_usd", "region", "allow", "deny", "pin"),
}


#: Gives a verb the options of those that decide one prompt.
_decision_options = with_options(
    click.argument("text", required=False),
    click.option("--chat", type=PATH, help="A file with an OpenAI chat body instead of TEXT; - is stdin."),
    click.option("--policy", "policy_file", type=PATH, help="The policy file. Default: the embedded policy."),
    ENCODER_DIR,
    click.option("--profile", metavar="NAME", help="Decide by this profile of the policy."),
    click.option("--max-risk", type=float, help="Choose the cheapest candidate of at most this risk, 0 to 1."),
    click.option("--max-cost-usd", type=float, help="The expected cost of the answer may not exceed this."),
    click.option("--region", metavar="TAG", help="Only candidates of this region may answer."),
    click.option("--allow", multiple=True, metavar="CANDIDATE", help="Only these candidates may answer; repeatable."),
    click.option("--deny", multiple=True, metavar="CANDIDATE", help="These candidates may not answer; repeatable."),
    click.option("--pin", metavar="CANDIDATE", help="This candidate answers."),
    JSON,
)


@click.command(
    "decide", cls=GroupedCommand, groups=_DECIDE_GROUPS, short_help="Decide which candidate would answer a prompt."
)
@_decision_options
def decide_verb(as_json: bool, **asked: Any) -> None:
    """Decide which candidate would answer TEXT, without asking any provider. A TEXT of - is read from stdin."""
    from router.cli.render import decision_to_dict, print_decision
    from router.cli.steps.decide_prompt import PromptOptions, decide_prompt

    decision, _ = decide_prompt(PromptOptions(**asked))
    if as_json:
        print_json(decision_to_dict(decision))
    else:
        print_decision(decision, stdout())


@click.command("explain", cls=GroupedCommand, groups=_DECIDE_GROUPS, short_help="Explain a decision in plain words.")
@_decision_options
def explain_verb(as_json: bool, **asked: Any) -> None:
    """Decide TEXT as `elle decide` does, and explain why. A TEXT of - is read from stdin.

    The answer is the reason in plain words, the known kinds of request that the prompt is nearest to, and what each of
    them adds to the risks and to the gain. The parts add up to the gain. No provider is asked.
    """
    from router.cli.steps.decide_prompt import PromptOptions, decide_prompt
    from router.cli.steps.show_explanation import explanation_to_dict, print_explanation
    from router.explaining.parts import explain

    explanation = explain(*decide_prompt(PromptOptions(**asked)))
    if as_json:
        print_json(explanation_to_dict(explanation))
    else:
        print_explanation(explanation, stdout())


@click.command("validate", short_help="Check a policy file and everything that it names.")
@click.argument("file", type=PATH)
@ENCODER_DIR
@click.option(
    "--deciding-only",
    is_flag=True,
    help="Do not check whether the candidates can be asked, as on a machine that has no keys.",
)
@click.option("--canary", type=PATH, help="The file of a canary: say what part the policy has in it.")
@JSON
def validate_verb(
    file: Path, encoder_dir: Path | None, deciding_only: bool, canary: Path | None, as_json: bool
) -> None:
    """Check a policy FILE and everything that it names: its probe, encoder, prices, keys and certificates.

    The exit status is 3 if the policy can decide, but some candidate cannot be asked for its answer here.
    """
    from router.cli.steps.validate_file import trials_in_words, validation, what_keeps_from_answering
    from router.policies.loading import load_policy

    policy = load_policy(file)
    if policy.encoder_spec is not None:
        from probes.encoders.load import load_encoder

        encoder = load_encoder(policy.encoder_spec, encoder_dir)
        for served in (policy, *policy.profiles()):
            served.check_encoder(encoder)
    unset, problems = ([], []) if deciding_only else what_keeps_from_answering(policy)
    can_answer = None if deciding_only else not unset and not problems
    trials = trials_in_words(policy, canary)
    if as_json:
        print_json(validation(policy, unset, problems) | {"can_answer": can_answer, "trials": trials})
    else:
        _say_validation(file, policy, unset, problems)
        for line in trials:
            click.echo(line)
    if can_answer is False:
        raise SystemExit(INCOMPLETE)


def _say_validation(file: Path, policy: ServedPolicy, unset: list[str], problems: list[str]) -> None:
    from router.cli.steps.validate_file import parameters_in_words
    from router.policies.certificate import say_certificate

    verdict = "can decide but NOT ANSWER" if unset or problems else "is valid"
    click.echo(f"{file} {verdict}: policy {policy.ref.name!r}, candidates {', '.join(policy.rules.file.names)}.")
    for variable in unset:
        click.echo(f"cannot answer: the environment variable {variable} is not set here.")
    for problem in problems:
        click.echo(f"cannot answer: {problem}")
    for line in parameters_in_words(policy):
        click.echo(line)
    for served in (policy, *policy.profiles()):
        click.echo(f"{served.ref.name}: {say_certificate(served.certificate)}.")


@click.command("demo", short_help="Send the service a dozen prompts and show its decisions.")
def demo_verb() -> None:
    """Start the service, send it a dozen prompts, print how each was decided, and stop."""
    from router.cli.demo import run_demo

    run_demo(stdout())

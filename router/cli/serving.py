"""The verbs of `elle` around the service: serve, decide, and those that prepare a policy file for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, GroupedCommand
from router.cli.output import INCOMPLETE, print_json, stdout

if TYPE_CHECKING:
    from router.policies.loading import ServedPolicy
    from router.serving.server import RunningService
    from router.serving.settings import ServerSettings

#: The options that only mean something with --http, by the names that `HttpGateway` has for them.
_HTTP_OPTIONS = ("max_body_bytes", "cors_origins", "comment_after_s")

_SERVE_GROUPS = {
    "What to serve": ("policies", "encoder_dir"),
    "Addresses": ("host", "port", "http_port", "metrics_port", "ext_proc"),
    "Over HTTP": ("cors_origins", "comment_after_s"),
    "Processes and threads": ("workers", "worker_timeout_s", "threads"),
    "Limits": ("max_pending", "max_prompt_bytes", "max_body_bytes"),
    "Memory of prompts and sessions": ("cache_entries", "max_sessions", "session_ttl_s"),
    "Shutting down": ("drain_s", "drain_delay_s"),
}


@click.command(
    "serve", cls=GroupedCommand, groups=_SERVE_GROUPS, short_help="Serve over gRPC, and over HTTP with --http."
)
@click.option(
    "--policy",
    "policies",
    type=PATH,
    multiple=True,
    help="A policy file; repeatable. The first one is the default. Without any, the embedded policy is served, whose "
    "answers are canned.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Whoever reaches it may use the service: there is no authentication.",
)
@click.option(
    "--port",
    default=50051,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port of gRPC; 0 takes any free one.",
)
@click.option(
    "--http",
    "http_port",
    type=click.IntRange(0, 65535),
    help="Also serve the API of OpenAI over HTTP on this port; 0 takes any free one.",
)
@click.option(
    "--max-body-bytes", type=click.IntRange(1), help="The largest body of a request over HTTP. Default: 32 MiB."
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://app.example.com, call the service from a browser; repeatable. "
    "The origin * stands for every web page.",
)
@click.option(
    "--comment-after-s",
    type=click.FloatRange(0, max_open=True, max=float("inf")),
    help="Seconds of silence after which a client that waits for a stream over HTTP gets a comment, so that no proxy "
    "gives up; 0 sends none. Default: 20.",
)
@ENCODER_DIR
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="The number of processes that share the port.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="The number of threads in each worker that run the encoder. Default: usable cores / workers.",
)
@click.option(
    "--max-pending",
    type=click.IntRange(1),
    help="The number of prompts that may wait for the encoder; more are refused. Default: 16 for each thread.",
)
@click.option(
    "--cache-entries",
    default=10_000,
    show_default=True,
    type=click.IntRange(0),
    help="The number of prompts whose predicted risks are kept, in case the same credential sends them again.",
)
@click.option(
    "--max-prompt-bytes",
    default=512 * 1024,
    show_default=True,
    type=click.IntRange(1),
    help="The most bytes of text that a request may hold.",
)
@click.option(
    "--max-sessions",
    default=50_000,
    show_default=True,
    type=click.IntRange(0),
    help="The number of sessions that are remembered at most.",
)
@click.option(
    "--session-ttl-s",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds after which an idle session is forgotten.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Also serve Prometheus metrics on this port; worker k, counted from 0, serves its own on this port + k.",
)
@click.option(
    "--worker-timeout-s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1),
    help="A worker that does not respond for this many seconds is killed and replaced.",
)
@click.option(
    "--drain-s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="The most seconds from SIGTERM to the end; answers that are not finished by then are cut short.",
)
@click.option(
    "--drain-delay-s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0),
    help="The first seconds of --drain-s, in which health says NOT_SERVING but new connections are accepted.",
)
@click.option(
    "--ext-proc",
    type=click.Choice(["closed", "open"]),
    is_flag=False,
    flag_value="closed",
    help="Also serve the external processor of Envoy. A request that it cannot decide is refused (closed, the default) "
    "or passed on unchanged (open).",
)
def serve_verb(workers: int, worker_timeout_s: float, **options: Any) -> None:
    """Serve over gRPC until SIGTERM, and over HTTP with --http."""
    from router.serving.event_loop import run_in_event_loop
    from router.serving.server import serve_forever
    from router.serving.workers import serve_workers

    settings = _server_settings(**options)
    if workers == 1:
        run_in_event_loop(serve_forever(settings, _announce_server))
        return

    def announce_workers(address: str, http_address: str | None) -> None:
        _announce(f"serving on {address} in {workers} processes", http_address)

    serve_workers(settings, workers, announce_workers, worker_timeout_s=worker_timeout_s)


def _server_settings(ext_proc: Any, http_port: int | None, **options: Any) -> ServerSettings:
    """Return the settings of the server, with the services that the options ask for beside gRPC."""
    from router.serving.settings import ServerSettings

    asked = {name: options.pop(name) for name in _HTTP_OPTIONS}
    asked = {name: value for name, value in asked.items() if value not in (None, ())}

    if ext_proc is not None:
        from router.gateways.ext_proc import ExternalProcessor

        options["doors"] = (ExternalProcessor(ext_proc),)
    if http_port is not None:
        from router.gateways.http.http_gateway import HttpGateway

        options |= {"http": HttpGateway(**asked), "http_port": http_port}
    elif asked:
        raise click.UsageError("--max-body-bytes, --cors-origin and --comment-after-s need --http.")
    return ServerSettings(**options)


def _announce_server(running: RunningService) -> None:
    _announce(f"serving {', '.join(running.router.policies)} on {running.address}", running.http_address)


def _announce(text: str, http_address: str | None) -> None:
    click.echo(text, err=True)
    if http_address is not None:
        click.echo(f"OpenAI's API on http://{http_address}/v1", err=True)


_DECIDE_GROUPS = {
    "The prompt": ("chat",),
    "The policy": ("policy_file", "profile", "encoder_dir"),
    "What the caller asks for": ("max_risk", "max_cost_usd", "region", "allow", "deny", "pin"),
}


def _decision_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the verbs that decide one prompt, in the order of their help."""
    for option in reversed(
        (
            click.argument("text", required=False),
            click.option("--chat", type=PATH, help="A file with an OpenAI chat body instead of TEXT; - is stdin."),
            click.option("--policy", "policy_file", type=PATH, help="The policy file. Default: the embedded policy."),
            ENCODER_DIR,
            click.option("--profile", metavar="NAME", help="Decide by this profile of the policy."),
            click.option("--max-risk", type=float, help="Choose the cheapest candidate of at most this risk, 0 to 1."),
            click.option("--max-cost-usd", type=float, help="The expected cost of the answer may not exceed this."),
            click.option("--region", metavar="TAG", help="Only candidates of this region may answer."),
            click.option(
                "--allow", multiple=True, metavar="CANDIDATE", help="Only these candidates may answer; repeatable."
            ),
            click.option(
                "--deny", multiple=True, metavar="CANDIDATE", help="These candidates may not answer; repeatable."
            ),
            click.option("--pin", metavar="CANDIDATE", help="This candidate answers."),
            JSON,
        )
    ):
        verb = option(verb)
    return verb


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
@JSON
def validate_verb(file: Path, encoder_dir: Path | None, deciding_only: bool, as_json: bool) -> None:
    """Check a policy FILE and everything that it names: its probe, encoder, prices, keys and certificates.

    The exit status is 3 if the policy can decide, but some candidate cannot be asked for its answer here.
    """
    from router.cli.steps.validate_file import validation, what_keeps_from_answering
    from router.policies.loading import load_policy

    policy = load_policy(file)
    if policy.encoder_spec is not None:
        from probes.encoders.load import load_encoder

        encoder = load_encoder(policy.encoder_spec, encoder_dir)
        for served in (policy, *policy.profiles()):
            served.check_encoder(encoder)
    unset, problems = ([], []) if deciding_only else what_keeps_from_answering(policy)
    can_answer = None if deciding_only else not unset and not problems
    if as_json:
        print_json(validation(policy, unset, problems) | {"can_answer": can_answer})
    else:
        _say_validation(file, policy, unset, problems)
    if can_answer is False:
        raise SystemExit(INCOMPLETE)


def _say_validation(file: Path, policy: ServedPolicy, unset: list[str], problems: list[str]) -> None:
    from router.policies.certificate import say_certificate

    verdict = "can decide but NOT ANSWER" if unset or problems else "is valid"
    click.echo(f"{file} {verdict}: policy {policy.ref.name}, candidates {', '.join(policy.rules.file.names)}.")
    for variable in unset:
        click.echo(f"cannot answer: the environment variable {variable} is not set here.")
    for problem in problems:
        click.echo(f"cannot answer: {problem}")
    for served in (policy, *policy.profiles()):
        click.echo(f"{served.ref.name}: {say_certificate(served.certificate)}.")


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


@click.command("demo", short_help="Send the service a dozen prompts and show its decisions.")
def demo_verb() -> None:
    """Start the service, send it a dozen prompts, print how each was decided, and stop."""
    from router.cli.demo import run_demo

    run_demo(stdout())


SERVING_VERBS = (serve_verb, decide_verb, explain_verb, validate_verb, policy_verb, demo_verb)

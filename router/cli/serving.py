"""`elle` online: serve, decide, and what a policy file needs before it is served."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.common import JSON, PATH, print_json, stdout
from router.errors import InvalidRequestError

if TYPE_CHECKING:
    from router.gateways.ext_proc import OnFailure


@click.command()
@click.option(
    "--policy", "policies", type=PATH, multiple=True, help="Policy file; repeatable, the first is the default."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no authentication."
)
@click.option("--port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--http", "http_port", type=click.IntRange(0, 65535), help="Also serve OpenAI's API over HTTP, here.")
@click.option("--max-body-bytes", type=click.IntRange(1), help="Of an HTTP request; 32 MiB unless set.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes on the same port.")
@click.option("--threads", type=click.IntRange(1), help="Encoder threads; usable cores / workers unless set.")
@click.option("--max-pending", type=click.IntRange(1), help="Prompts that may wait; 16 per thread unless set.")
@click.option(
    "--cache-entries",
    default=10_000,
    show_default=True,
    type=click.IntRange(0),
    help="Judgements kept, for each credential by itself.",
)
@click.option("--max-prompt-bytes", default=512 * 1024, show_default=True, type=click.IntRange(1))
@click.option("--max-sessions", default=50_000, show_default=True, type=click.IntRange(0), help="Remembered at most.")
@click.option("--session-ttl-s", default=3600.0, show_default=True, type=click.FloatRange(0), help="Idle ones expire.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Prometheus metrics; worker k has this port + k.")
@click.option(
    "--worker-timeout-s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1),
    help="A worker that is silent for longer is killed and replaced.",
)
@click.option(
    "--drain-s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="From SIGTERM to the end, at most; answers not finished by then are cut short.",
)
@click.option(
    "--drain-delay-s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Of these, how long new connections are taken while health says NOT_SERVING.",
)
@click.option(
    "--ext-proc",
    type=click.Choice(["closed", "open"]),
    is_flag=False,
    flag_value="closed",
    help="Also serve Envoy's external processor; what it cannot decide is refused (closed) or passed on (open).",
)
def serve(
    policies: tuple[Path, ...],
    workers: int,
    worker_timeout_s: float,
    ext_proc: OnFailure | None,
    http_port: int | None,
    max_body_bytes: int | None,
    **options: Any,
) -> None:
    """Serve over gRPC until SIGTERM, and over HTTP if asked. Without --policy: the embedded default, canned answers."""
    from router.serving import event_loop
    from router.serving.server import ServerSettings, Serving, serve_forever
    from router.serving.workers import serve_workers

    if ext_proc is not None:
        from router.gateways.ext_proc import ExternalProcessor

        options["doors"] = (ExternalProcessor(ext_proc),)

    if http_port is not None:
        from router.gateways.openai_http import MAX_BODY_BYTES, OpenAIDoor

        options |= {"http": OpenAIDoor(max_body_bytes=max_body_bytes or MAX_BODY_BYTES), "http_port": http_port}
    elif max_body_bytes is not None:
        raise click.UsageError("--max-body-bytes needs --http.")

    def say(what: str, where: str, address: str, http_address: str | None) -> None:
        click.echo(f"serving {what}on {address}{where}", err=True)
        if http_address is not None:
            click.echo(f"OpenAI's API on http://{http_address}/v1", err=True)

    def on_ready(running: Serving) -> None:
        say(", ".join(running.router.policies) + " ", "", running.address, running.http_address)

    settings = ServerSettings(policies=policies, **options)
    if workers == 1:
        event_loop.run(serve_forever(settings, on_ready))
    else:
        serve_workers(
            settings,
            workers,
            lambda *at: say("", f" in {workers} processes", *at),
            worker_timeout_s=worker_timeout_s,
        )


@click.command()
@click.argument("text", required=False)
@click.option("--chat", type=PATH, help="File with an OpenAI chat body instead of TEXT; - for stdin.")
@click.option("--policy", "policy_file", type=PATH, help="Policy file; the embedded default unless set.")
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@click.option("--profile", metavar="NAME", help="Of the policy's profiles.")
@click.option("--max-risk", type=float, help="Take the cheapest candidate within this risk.")
@click.option("--max-cost-usd", type=float, help="Bound on the expected cost of the answer.")
@click.option("--region", metavar="TAG", help="Only candidates of this region may answer.")
@click.option("--allow", multiple=True, metavar="CANDIDATE", help="Only these may answer; repeatable.")
@click.option("--deny", multiple=True, metavar="CANDIDATE", help="These may not answer; repeatable.")
@click.option("--pin", metavar="CANDIDATE", help="This one answers.")
@JSON
def decide(
    text: str | None, chat: Path | None, policy_file: Path | None, encoder_dir: Path | None, as_json: bool, **asked: Any
) -> None:
    """Decide who would answer TEXT (- for stdin). Contacts no provider."""
    from router.cli.render import decision_to_dict, print_decision
    from router.deciding.pipeline import Router
    from router.values import Overrides

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
        print_json(decision_to_dict(decision))
    else:
        print_decision(decision, stdout())


def _query(text: str | None, chat: Path | None, overrides: Any) -> Any:
    from router.tuning.outcomes.records import parse_json
    from router.values import RouteQuery

    if (text is None) == (chat is None):
        raise click.UsageError("give either TEXT or --chat FILE.")
    if chat is None:
        prompt = sys.stdin.read() if text == "-" else text
        return RouteQuery.from_prompt(prompt or "", overrides=overrides)
    try:
        # As bytes, for the reader to tell by a byte-order mark how they are encoded.
        body = parse_json(sys.stdin.buffer.read() if str(chat) == "-" else chat.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"--chat must be a JSON file: {error}.") from error
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise InvalidRequestError("--chat must hold a JSON object with a list `messages`.")
    parameters = {key: value for key, value in body.items() if key not in {"messages", "model", "stream"}}
    return RouteQuery(tuple(body["messages"]), overrides=overrides, parameters=parameters)


@click.command()
@click.argument("file", type=PATH)
@click.option("--encoder-dir", type=PATH, help="Where the encoder's files are.")
@JSON
def validate(file: Path, encoder_dir: Path | None, as_json: bool) -> None:
    """Check a policy FILE with everything it names: probe, encoder, prices, keys."""
    from router.answering.candidate_check import problems_of
    from router.policies.certificate import is_expired, say_certificate
    from router.policies.loading import load_policy, missing_keys

    policy = load_policy(file)
    if policy.encoder_spec is not None:
        from probes.encoders.load import load_encoder

        encoder = load_encoder(policy.encoder_spec, encoder_dir)
        for served in (policy, *policy.profiles()):
            served.check_encoder(encoder)
    unset = missing_keys(policy)
    # Those whose variable is not set are listed by its name.
    others = tuple(one for one in policy.rules.file.candidates if one.api_key_env not in unset)
    problems = problems_of(others)
    found = {
        "valid": True,
        "policy": policy.ref.name,
        "version": policy.ref.version,
        "digest": policy.ref.digest,
        "candidates": list(policy.rules.file.names),
        "probe": policy.probe_ref.digest if policy.probe_ref else None,
        "unset_key_variables": unset,
        "candidates_that_cannot_answer": problems,
        "profiles": [served.ref.name for served in policy.profiles()],
        "certificate": policy.certificate.model_dump(mode="json") if policy.certificate else None,
        "certificate_expired": is_expired(policy.certificate) if policy.certificate else None,
    }
    if as_json:
        print_json(found)
    else:
        click.echo(f"{file} is valid: policy {policy.ref.name}, candidates {', '.join(policy.rules.file.names)}.")
        for served in (policy, *policy.profiles()):
            click.echo(f"{served.ref.name}: {say_certificate(served.certificate)}.")
        for variable in unset:
            click.echo(f"note: {variable} is not set here; deciding works, answering will not.")
        for problem in problems:
            click.echo(f"note: {problem} Deciding works, answering will not.")


@click.command()
@click.option("--from-litellm", type=PATH, metavar="CONFIG", help="A LiteLLM file whose model_list to start from.")
def policy(from_litellm: Path | None) -> None:
    """Print a policy to start your own from: the embedded default, or the models of a LiteLLM configuration."""
    from router.policies.loading import DEFAULT_POLICY

    if from_litellm is not None:
        from router.gateways.litellm_config import policy_from_litellm

        click.echo(policy_from_litellm(from_litellm), nl=False)
        return
    click.echo(DEFAULT_POLICY.read_text("utf-8"), nl=False)


@click.command()
def demo() -> None:
    """Start the service, send it a dozen prompts, print what was decided, stop."""
    from router.cli import demo as demonstration

    demonstration.main(stdout())


COMMANDS = (serve, decide, validate, policy, demo)

"""Do what `elle decide` and `elle explain` share: read a prompt or a chat, load the policy, and decide."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click

from probes.bounded.files import BoundedFileError, read_bounded
from probes.bounded.text import decode_json, decode_text, os_fault
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.errors import InvalidRequestError
from router.policies.loading import ServedPolicy
from router.values import Overrides, RouteQuery

#: The largest file of `--chat`, and the most that is read from stdin: as large as a body over HTTP.
_MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class PromptOptions:
    """Holds the options that the user gives to `elle decide` and `elle explain`.

    Attributes:
        text: the prompt; - stands for stdin. chat: file of an OpenAI chat body instead; - stands for stdin.
        policy_file: the policy; None takes the embedded one. profile: of that policy. encoder_dir: of its encoder.
        max_risk, max_cost_usd, region, allow, deny, pin: what the caller asks for, as in `Overrides`.
    """

    text: str | None
    chat: Path | None
    policy_file: Path | None
    encoder_dir: Path | None
    profile: str | None
    max_risk: float | None
    max_cost_usd: float | None
    region: str | None
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    pin: str | None


def decide_prompt(options: PromptOptions) -> tuple[RoutingDecision, ServedPolicy]:
    """Return the decision on the prompt that the options name, and the policy that made it.

    Raises RouterError for a prompt or an option that cannot be used, and click.UsageError for a wrong combination.
    """
    overrides = Overrides(
        max_risk=options.max_risk,
        max_cost_usd=options.max_cost_usd,
        allowed_candidates=options.allow,
        denied_candidates=options.deny,
        pin=options.pin,
        require_region=options.region,
    )
    query = _read_query(options.text, options.chat, overrides)
    files = [options.policy_file] if options.policy_file else []
    router = Router.from_files(*files, encoder_dir=options.encoder_dir)
    name = router.policy(None).ref.name
    if options.profile is not None:
        name = f"{name}:{options.profile}"
        query = replace(query, overrides=replace(overrides, policy=name))
    return router.decide(query), router.policy(name)


def _read_query(text: str | None, chat: Path | None, overrides: Overrides) -> RouteQuery:
    """Return the query to decide: the text as one user message, or the chat body in a file or on stdin."""
    if (text is None) == (chat is None):
        raise click.UsageError("give either TEXT or --chat FILE.")
    if chat is None:
        return RouteQuery.from_prompt(_read_text() if text == "-" else text or "", overrides=overrides)
    try:
        # As bytes: the JSON reader finds out by the byte-order mark how they are encoded.
        body = decode_json(_stdin_bytes() if str(chat) == "-" else read_bounded(chat, _MOST_BYTES))
    except OSError as error:
        raise InvalidRequestError(f"--chat {chat} cannot be read: {os_fault(error)}.") from error
    except ValueError as error:
        raise InvalidRequestError(f"--chat {chat} must be a JSON file: {error}.") from error
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise InvalidRequestError(f"--chat {chat} must hold a JSON object with a list `messages`.")
    parameters = {key: value for key, value in body.items() if key not in {"messages", "model", "stream"}}
    return RouteQuery(tuple(body["messages"]), overrides=overrides, parameters=parameters)


def _read_text() -> str:
    try:
        return decode_text(_stdin_bytes())
    except ValueError as error:
        raise InvalidRequestError(f"the text on stdin cannot be read: {error}.") from error


def _stdin_bytes() -> bytes:
    found = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(found) > _MOST_BYTES:
        raise BoundedFileError(f"it must have at most {_MOST_BYTES:,} bytes")
    return found

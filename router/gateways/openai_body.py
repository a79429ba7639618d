"""A chat body as OpenAI or Anthropic clients send it -> RouteQuery, and back with another `model`. Pure.

What `model` may be:

- `elle/POLICY` or `elle/POLICY:PROFILE` (`elle/default:economy`): that policy decides;
- `router-NAME-THRESHOLD`, as RouteLLM's clients send it: the policy NAME, or for the names of RouteLLM's own routers
  (`mf`, `bert`, `causal_llm`, `sw_ranking`) the default one, decides with the threshold, 0 to 1, as `min_gain`;
- the name of a candidate: it answers, nothing is weighed (a pin; what the request needs must still be within it).

A RouteLLM threshold is compared with the *gain* of the stronger model (its probability of an acceptable answer minus
the weaker one's), where RouteLLM compares it with the probability that the stronger one wins. Both send more to the
weaker model the higher it is, but the same number does not give the same share: take a new one from `elle tune`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.asking.session_ids import session_id_of
from router.errors import InvalidRequestError, UnknownModelError
from router.intake.json_object import read_object
from router.intake.json_structure import MAX_TEXT_BYTES, check_json
from router.plain_json import MAX_REQUEST_DEPTH, check
from router.quoting import quoted
from router.values import Overrides, RouteQuery

if TYPE_CHECKING:
    from router.policies.loading import ServedPolicy

POLICY_PREFIX = "elle/"
ALIAS_PREFIX = "router-"

#: Names of RouteLLM's own routers, each of which the default policy stands in for. Its `random` has no counterpart.
ROUTELLM_ROUTERS = frozenset({"mf", "bert", "causal_llm", "sw_ranking"})

#: Fields that are no parameters of the answer.
_OWN_FIELDS = frozenset({"model", "messages", "stream"})

#: Characters that a model's name may have.
_LONGEST_NAME = 1000

_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)


def query_from_body(
    body: Mapping[str, Any], headers: Mapping[str, str], policies: Mapping[str, ServedPolicy]
) -> RouteQuery:
    """What a chat body asks of the router. Messages and all other fields are handed on untouched.

    Args:
        body: the decoded JSON body, in the shape of OpenAI's chat completions or Anthropic's messages.
        headers: of the HTTP request; read for the id of the session (`router.asking.session_ids.session_id_of`).
        policies: all served policies by name, profiles included, the default first (`Router.policies`).

    Raises:
        UnknownModelError: `model` is none of the names above; the message lists them.
        InvalidRequestError: `model` or `messages` is missing or of the wrong type, or a threshold is not 0 to 1.
    """
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(
            f"model must be one of {', '.join(model_names(policies))}, got {quoted(model)}.", field="model"
        )
    if not isinstance(messages, list):
        raise InvalidRequestError(f"messages must be a list, got {quoted(messages)}.", field="messages")
    parameters = {key: value for key, value in body.items() if key not in _OWN_FIELDS}
    return RouteQuery(
        messages=tuple(messages),
        overrides=overrides_from_model(model, policies),
        session_id=session_id_of("", headers, parameters),
        parameters=parameters,
    )


def overrides_from_model(model: str, policies: Mapping[str, ServedPolicy]) -> Overrides:
    """What a model name asks of the router. Arguments and errors as `query_from_body`."""
    if len(model) > _LONGEST_NAME:
        raise _unknown(model, policies)
    for name, policy in policies.items():
        if model in policy.rules.file.names:
            return Overrides(policy=name, pin=model)
    if model.startswith(POLICY_PREFIX) and model.removeprefix(POLICY_PREFIX) in policies:
        return Overrides(policy=model.removeprefix(POLICY_PREFIX))
    if model.startswith(ALIAS_PREFIX):
        name, _, threshold = model.removeprefix(ALIAS_PREFIX).rpartition("-")
        if name in policies or name in ROUTELLM_ROUTERS:
            # RouteLLM's names mean the default policy, unless one of ours is called so.
            return Overrides(policy=name if name in policies else None, min_gain=_threshold(threshold, model))
    raise _unknown(model, policies)


def _unknown(model: str, policies: Mapping[str, ServedPolicy]) -> UnknownModelError:
    return UnknownModelError(
        f"model must be one of {', '.join(model_names(policies))}, got {quoted(model)}.", field="model"
    )


def model_names(policies: Mapping[str, ServedPolicy]) -> list[str]:
    """Every name that `model` may have, but the aliases: policies with their profiles, then candidates."""
    candidates = dict.fromkeys(name for policy in policies.values() for name in policy.rules.file.names)
    return [*(POLICY_PREFIX + name for name in policies), *candidates]


def model_list(policies: Mapping[str, ServedPolicy]) -> list[dict[str, Any]]:
    """The same as OpenAI's model objects; the field `elle` says what each is."""
    models = {row.name: row.model for policy in policies.values() for row in policy.rules.file.candidates}
    listed = []
    for name in model_names(policies):
        if name in models:
            about = {"kind": "candidate", "model": models[name]}
            owner = models[name].partition("/")[0]
        else:
            about, owner = {"kind": "profile" if ":" in name else "policy"}, "elle-router"
        listed.append({"id": name, "object": "model", "created": 0, "owned_by": owner, "elle": about})
    return listed


def upstream_model(model: str) -> str:
    """The name by which an OpenAI-compatible upstream knows a LiteLLM model string: what follows the provider."""
    return model.partition("/")[2] or model


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A JSON body of which `model` can be exchanged without touching another byte.

    Attributes:
        fields: the body, decoded.
        raw: the body as it came.
        model_at: where in `raw` the value of `model` begins and ends; None where there is none.
    """

    fields: Mapping[str, Any]
    raw: bytes
    model_at: tuple[int, int] | None

    @classmethod
    def parse(cls, raw: bytes, *, max_text_bytes: int = MAX_TEXT_BYTES) -> ChatBody:
        """Decode a body, after its structure has been counted.

        max_text_bytes: of text, as `router.intake.json_structure.check_json` takes it.

        Raises InvalidRequestError for anything but one JSON object in UTF-8 with distinct keys, and for one that holds
        too much.
        """
        structure = check_json(raw, max_text_bytes=max_text_bytes)
        try:
            found = read_object(raw, structure.long_strings)
            check(found.fields, max_depth=MAX_REQUEST_DEPTH)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"the body must be a JSON object in UTF-8; it is not: {error}.") from error
        return cls(found.fields, raw, found.at.get("model"))

    def with_model(self, model: str) -> bytes:
        """The body with this `model`, all else byte for byte as it came. Raises InvalidRequestError without one."""
        before, behind = self.around_model
        return b"".join((before, json.dumps(model).encode(), behind))

    @property
    def around_model(self) -> tuple[bytes, bytes]:
        """What stands before the value of `model`, and what behind. Raises InvalidRequestError without one."""
        if self.model_at is None:
            raise InvalidRequestError("model must be set, got none.", field="model")
        begin, end = self.model_at
        return self.raw[:begin], self.raw[end:]


def _threshold(text: str, model: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise InvalidRequestError(
            f"the threshold of model `router-NAME-THRESHOLD` must be a number from 0 to 1, got {quoted(text)} in "
            f"{quoted(model)}.",
            field="model",
        )
    return float(text)

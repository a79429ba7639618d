"""Turn the chat body of an OpenAI or Anthropic client into a RouteQuery, and exchange its `model`. Pure functions.

The field `model` may be one of these:

- the name of a candidate: that candidate answers (a pin), if it can do what the request needs;
- `elle/POLICY` or `elle/POLICY:PROFILE` (`elle/default:economy`): that policy decides;
- `elle-POLICY` or `elle-POLICY:PROFILE`, for clients that take `x/y` for a provider and a model; `auto` and `elle`:
  the default policy decides;
- an alias of a policy (`aliases` in its file), such as `claude-haiku-*`;
- `router-NAME-THRESHOLD`, as RouteLLM's clients send it: the policy NAME, or for the names of RouteLLM's own routers
  (`mf`, `bert`, `causal_llm`, `sw_ranking`) the default one, decides with the threshold, 0 to 1, as `min_gain`.

A RouteLLM threshold is compared with the *gain* of the stronger model (its probability of an acceptable answer minus
the weaker one's), where RouteLLM compares it with the probability that the stronger one wins. In both, a
higher threshold sends more requests to the weaker model, but the same number does not give the same share. Take a new
threshold from `elle tune`.
"""

from __future__ import annotations

import codecs
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.asking.caller_scores import scores_of
from router.asking.request_origin import with_origin
from router.asking.session_ids import session_id_of
from router.asking.task_keys import task_of
from router.errors import InvalidRequestError, UnknownModelError
from router.intake.json_object import read_object
from router.intake.json_structure import MAX_TEXT_BYTES, check_json
from router.plain_json import MAX_REQUEST_DEPTH, check
from router.quoting import did_you_mean, quoted
from router.values import ApiFormat, Overrides, RouteQuery
from router.written_body import WrittenBody

if TYPE_CHECKING:
    from router.policies.loading import ServedPolicy

POLICY_PREFIX, POLICY_PREFIX_WITHOUT_SLASH = "elle/", "elle-"
ROUTELLM_PREFIX = "router-"
#: Names of the default policy: one of which clients expect that it picks a model by itself, and ours.
DEFAULT_MODELS = frozenset({"auto", "elle"})

#: Names of RouteLLM's own routers; the default policy decides for each. Its router `random` has no counterpart.
ROUTELLM_ROUTERS = frozenset({"mf", "bert", "causal_llm", "sw_ranking"})

#: The field of a body that holds what is asked, where it is not `messages`.
_ASKED_IN: Mapping[ApiFormat, str] = {
    ApiFormat.OPENAI_RESPONSES: "input",
    ApiFormat.OPENAI_COMPLETIONS: "prompt",
    ApiFormat.OPENAI_EMBEDDINGS: "input",
}

#: Most characters of a model name, and of one for which a similar name is looked for.
_MAX_NAME_CHARS, _LONGEST_HINTED = 1000, 100

#: Most names that an error lists.
_MOST_SHOWN_NAMES = 50

_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)


def query_from_body(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    policies: Mapping[str, ServedPolicy],
    api_format: ApiFormat = ApiFormat.OPENAI_CHAT,
) -> RouteQuery:
    """Return the query that a chat body holds, with the overrides that its `model` names.

    Messages and all other fields are passed on unchanged.

    Args:
        body: the decoded JSON body, in the shape of OpenAI's chat completions or responses, or Anthropic's messages.
        headers: the headers of the HTTP request, which may hold the id of the session, the key of the task and scores;
            see `session_ids.session_id_of`, `task_keys.task_of` and `caller_scores.scores_of` of `router.asking`.
        policies: all served policies by name, profiles included, the default first (`Router.policies`).
        api_format: the API whose shape the body has.

    Raises:
        UnknownModelError: `model` is none of the names above; the message lists those that exist.
        InvalidRequestError: `model`, `messages` or `input` is of the wrong type, or a threshold is not 0 to 1.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(
            f"model must be text, such as {', '.join(model_names(policies)[:3])}, got {quoted(model)}."
            f"{_misspelled('model', body)}",
            field="model",
        )
    asked = _ASKED_IN.get(api_format, "messages")
    parameters = {key: value for key, value in body.items() if key not in {"model", asked, "stream"}}
    query = RouteQuery(
        messages=_messages(api_format, asked, body),
        api_format=api_format,
        overrides=overrides_from_model(model, policies),
        session_id=session_id_of("", headers, parameters),
        parameters=parameters,
        task=task_of("", headers, parameters),
        scores=scores_of({}, headers, parameters),
    )
    return with_origin(query, headers)


def _misspelled(field: str, body: Mapping[str, Any]) -> str:
    """Return a question for the end of a message if the body lacks a field and has one of nearly the same name."""
    near = [name for name in body if len(name) <= _LONGEST_HINTED][:_MOST_SHOWN_NAMES]
    return "" if field in body else did_you_mean(field, near, lambda name: f"{field} by {quoted(name)}")


def _messages(api_format: ApiFormat, field: str, body: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the messages of a body, or the input items, which may be one text, or missing if the provider has them.

    The texts of a prompt are one message of the user. Of a prompt of tokens nobody here knows the text.
    """
    value = body.get(field)
    if field == "messages" and not isinstance(value, list):
        hint = _misspelled(field, body)
        raise InvalidRequestError(f"messages must be a list, got {quoted(value)}.{hint}", field=field)
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    if not isinstance(value, list | None):
        raise InvalidRequestError(f"{field} must be text or a list, got {quoted(value)}.", field=field)
    if api_format is ApiFormat.OPENAI_RESPONSES or field == "messages":
        return tuple(value or ())
    texts = [text for text in value or () if isinstance(text, str)]
    return ({"role": "user", "content": "\n".join(texts)},) if texts else ()


def overrides_from_model(model: str, policies: Mapping[str, ServedPolicy]) -> Overrides:
    """Return the overrides that a model name stands for, such as the policy `economy` for the model `economy`.

    See `query_from_body` for arguments and errors.
    """
    if len(model) > _MAX_NAME_CHARS:
        raise _unknown(model, policies)
    for name, policy in policies.items():
        if model in policy.rules.file.names:
            return Overrides(policy=name, pin=model)
    for prefix in (POLICY_PREFIX, POLICY_PREFIX_WITHOUT_SLASH):
        if model.startswith(prefix) and model.removeprefix(prefix) in policies:
            return Overrides(policy=model.removeprefix(prefix))
    if model in DEFAULT_MODELS:
        return Overrides()
    if (aliased := _overrides_from_alias(model, policies)) is not None:
        return aliased
    if model.startswith(ROUTELLM_PREFIX):
        name, _, threshold = model.removeprefix(ROUTELLM_PREFIX).rpartition("-")
        if name in policies or name in ROUTELLM_ROUTERS:
            # One of RouteLLM's names means the default policy, unless a policy of ours has that name.
            return Overrides(policy=name if name in policies else None, min_gain=_threshold(threshold, model))
    raise _unknown(model, policies)


def _overrides_from_alias(model: str, policies: Mapping[str, ServedPolicy]) -> Overrides | None:
    """Return what an alias stands for, or None if no policy has one that matches.

    An alias that is the model's very name counts before those with a `*`. Of these the longest that matches counts.
    """
    for policy in policies.values():
        file = policy.rules.file
        target = file.aliases.get(model)
        if target is None:
            matching = [alias for alias in file.aliases if "*" in alias and fnmatch.fnmatchcase(model, alias)]
            target = file.aliases[max(matching, key=len)] if matching else None
        if target is not None:
            if target in file.names:
                return Overrides(policy=file.name, pin=target)
            return Overrides(policy=file.name if target == file.name else f"{file.name}:{target}")
    return None


def _unknown(model: str, policies: Mapping[str, ServedPolicy]) -> UnknownModelError:
    names = model_names(policies)
    shown = ", ".join(names[:_MOST_SHOWN_NAMES])
    more = (
        f" and {len(names) - _MOST_SHOWN_NAMES:,} more, which GET /v1/models lists" if names[_MOST_SHOWN_NAMES:] else ""
    )
    without_slash = (POLICY_PREFIX_WITHOUT_SLASH + name for name in policies)
    hint = did_you_mean(model, [*names, *without_slash]) if len(model) <= _LONGEST_HINTED else ""
    names_of_own = "" if hint else " `aliases` in a policy give a client's own names a meaning."
    return UnknownModelError(
        f"model must be one of {shown}{more}, got {quoted(model)}.{hint}{names_of_own}", field="model"
    )


def model_names(policies: Mapping[str, ServedPolicy]) -> list[str]:
    """Return the names that `model` may have: the default, policies and profiles, candidates, and aliases without `*`.

    RouteLLM's names, and names of policies without a slash, are not among them.
    """
    files = [policy.rules.file for policy in policies.values()]
    candidates = [name for file in files for name in file.names]
    aliases = [alias for file in files for alias in file.aliases if "*" not in alias]
    return list(dict.fromkeys(["auto", *(POLICY_PREFIX + name for name in policies), *candidates, *aliases]))


def model_list(policies: Mapping[str, ServedPolicy]) -> list[dict[str, Any]]:
    """Return the names of `model_names` as model objects; see `model_object`."""
    return [model_object(name, policies) for name in model_names(policies)]


def model_object(name: str, policies: Mapping[str, ServedPolicy]) -> dict[str, Any]:
    """Return what a model name stands for, with the fields of a model object of OpenAI's API and of Anthropic's.

    The field `elle` says whether it is a candidate, a policy, a profile of one, or an alias. Raises UnknownModelError
    for a name that is none.
    """
    files = [policy.rules.file for policy in policies.values()]
    models = {candidate.name: candidate.model for file in files for candidate in file.candidates}
    owner = "elle-router"
    if name in models:
        about = {"kind": "candidate", "model": models[name]}
        owner = models[name].partition("/")[0]
    else:
        found = overrides_from_model(name, policies)
        asks_policy = name in DEFAULT_MODELS or name.startswith((POLICY_PREFIX, POLICY_PREFIX_WITHOUT_SLASH))
        target = found.pin or found.policy or next(iter(policies))
        about = {"kind": ("profile" if ":" in target else "policy")} if asks_policy else {"kind": "alias", "of": target}
    of_openai = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    return of_openai | {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z", "elle": about}


def upstream_model(model: str) -> str:
    """Return the name by which the upstream knows a model: `openai/gpt-4o` becomes `gpt-4o`."""
    return model.partition("/")[2] or model


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A JSON body: what it holds, and how it was written.

    Attributes:
        fields: the body, decoded.
        written: the bytes of the body, in which `model` can be exchanged without changing any other byte.
    """

    fields: Mapping[str, Any]
    written: WrittenBody

    def named(self, model: str) -> ChatBody:
        """Return the body of a request whose path names the model, which then counts and not one in the body."""
        written = self.written
        if "model" not in written.at:
            # Behind the brace with which the object begins.
            at = written.raw.index(b"{") + 1
            added = b'"model":""' + (b"," if self.fields else b"")
            moved = {key: (begin + len(added), end + len(added)) for key, (begin, end) in written.at.items()}
            own = at + len(b'"model":'), at + len(b'"model":""')
            written = WrittenBody(written.raw[:at] + added + written.raw[at:], {"model": own, **moved})
        return ChatBody({**self.fields, "model": model}, written)

    @classmethod
    def parse(cls, raw: bytes, *, max_text_bytes: int = MAX_TEXT_BYTES) -> ChatBody:
        """Decode a body after checking its size and its structure. A byte order mark before it is left out.

        max_text_bytes: most bytes of text; see `router.intake.json_structure.check_json`.

        Raises InvalidRequestError if the body is not one JSON object in UTF-8 with distinct keys, or holds too much.
        """
        # Some programs of Windows write the mark. Standards forbid it, and allow to read over it, as most servers do.
        raw = raw.removeprefix(codecs.BOM_UTF8)
        structure = check_json(raw, max_text_bytes=max_text_bytes)
        try:
            found = read_object(raw, structure.long_strings)
            check(found.fields, max_depth=MAX_REQUEST_DEPTH)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"the body must be a JSON object in UTF-8; it is not: {error}.") from error
        return cls(found.fields, WrittenBody(raw, found.at))


def _threshold(text: str, model: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise InvalidRequestError(
            f"the threshold of model `router-NAME-THRESHOLD` must be a number from 0 to 1, got {quoted(text)} in "
            f"{quoted(model)}.",
            field="model",
        )
    return float(text)

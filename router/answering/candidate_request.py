"""Turn a request into the one that a candidate gets: its own parameters are set, and those that it refuses left out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from router.asking.parameters import (
    CHATS_OF_OPENAI,
    OTHER_NAMES,
    OUTPUT_BOUNDS,
    given_parameters,
    is_given,
    output_bound,
    place_of,
)
from router.decision import RoutingDecision
from router.errors import UpstreamContextWindowError, UpstreamMisconfiguredError, UpstreamRejectedError
from router.policies.candidates.candidate import Candidate
from router.policies.rules import refused_parameters
from router.values import ApiFormat, RouteQuery

#: Names of parameters that a provider's words may hold without meaning the parameter.
_USUAL_WORDS = frozenset({"stop", "seed", "thinking"})

#: Stands for a field that a body does not have.
_NONE = object()


def request_for(candidate: Candidate, query: RouteQuery, dropped: Collection[str] = ()) -> RouteQuery:
    """Return the request that a candidate is asked with, in the same API; the very same one if nothing changes.

    The candidate's own parameters are set where the caller set none. A bound on output tokens is written as a number,
    under a name that the candidate takes, and one of -1 or 0 is left out of a chat.

    dropped: the parameters to leave out, by their names in chat completions.
    """
    if not dropped and not candidate.params.model_fields_set and query.parameters.keys().isdisjoint(OUTPUT_BOUNDS):
        return query
    fields = dict(query.parameters)
    for name in dropped:
        _leave_out(fields, place_of(name, query.api_format) or (name,))
    _write_bounds(fields, candidate, query.api_format)
    _set_own(fields, candidate, query.api_format)
    changed = [key for key in {**query.parameters, **fields} if _differs(key, query.parameters, fields)]
    if not changed:
        return query
    body = query.body
    if body is not None:
        body = body.changed(
            {key: json.dumps(fields[key], separators=(",", ":")).encode() if key in fields else None for key in changed}
        )
    return replace(query, parameters=fields, body=body)


@contextlib.contextmanager
def blaming_own_parameters(candidate: Candidate, query: RouteQuery) -> Iterator[None]:
    """Raise UpstreamMisconfiguredError if a candidate refuses a parameter that its policy sets, and not the caller.

    Such a refusal says nothing about the request, so another candidate may answer it.
    """
    try:
        yield
    except UpstreamContextWindowError:
        raise
    except UpstreamRejectedError as error:
        name = _refused_own(candidate, query, error)
        if name is None:
            raise
        who = candidate.described
        found = UpstreamMisconfiguredError(
            f"{who} refuses the parameter {name} that the policy sets for it.", http_status=error.http_status
        )
        found.counts = False
        raise found from error


def _refused_own(candidate: Candidate, query: RouteQuery, error: UpstreamRejectedError) -> str | None:
    """Return the parameter, among those that only the policy sets, that the provider says it refuses; None if none."""
    given = given_parameters(query.parameters, query.api_format)
    own = [name for name in candidate.params.named if not is_given(name, given)]
    own += [name for name in candidate.params.extra_body if query.parameters.get(name) is None]
    for name in own:
        place = place_of(name, query.api_format) or (name,)
        says_so = error.provider_param is not None and error.provider_param in {name, place[0], ".".join(place)}
        if says_so or (error.provider_param is None and _names(error.provider_words or "", name, ".".join(place))):
            return name
    return None


def _names(words: str, *names: str) -> bool:
    """Return whether a provider's words name a parameter; a name that is a usual word must stand in quotes."""
    quoted = (re.search(rf"['\"`]{re.escape(name)}['\"`]", words) for name in names)
    plain = (re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", words) for name in names if name not in _USUAL_WORDS)
    return any(quoted) or any(plain)


def dropped_for(decision: RoutingDecision, candidate: str) -> tuple[str, ...]:
    """Return the parameters of a request that a candidate is not sent."""
    return next((row.dropped_parameters for row in decision.candidates if row.candidate == candidate), ())


def _differs(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    # What was not touched is the same object.
    return before.get(key, _NONE) is not after.get(key, _NONE)


def _leave_out(fields: dict[str, Any], place: tuple[str, ...]) -> None:
    outer = fields.get(place[0])
    if len(place) == 1:
        fields.pop(place[0], None)
    elif isinstance(outer, Mapping) and place[1] in outer:
        fields[place[0]] = {key: value for key, value in outer.items() if key != place[1]}


def _write_bounds(fields: dict[str, Any], candidate: Candidate, api_format: ApiFormat) -> None:
    """Write the caller's bounds on output tokens as providers read them."""
    for name in OUTPUT_BOUNDS:
        value, other = fields.get(name), OTHER_NAMES.get(name)
        if value is None:
            continue
        bound = output_bound(name, value, api_format)
        if bound is None and api_format in CHATS_OF_OPENAI:
            del fields[name]
            continue
        if isinstance(value, str) and bound is not None:
            fields[name] = bound
        if other is not None and api_format is ApiFormat.OPENAI_CHAT and fields.get(other) is None:
            refused = refused_parameters(candidate)
            if name in refused and other not in refused:
                fields[other] = fields.pop(name)


def _set_own(fields: dict[str, Any], candidate: Candidate, api_format: ApiFormat) -> None:
    given = given_parameters(fields, api_format)
    for name, value in candidate.params.named.items():
        place = place_of(name, api_format)
        if place is None or is_given(name, given):
            continue
        outer = fields.get(place[0])
        if len(place) == 1:
            fields[place[0]] = value
        elif outer is None or isinstance(outer, Mapping):
            fields[place[0]] = {**(outer or {}), place[1]: value}
    for name, value in candidate.params.extra_body.items():
        if fields.get(name) is None:
            fields[name] = value

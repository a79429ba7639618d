"""Say what becomes of parameters that a candidate refuses: they are left out, or the candidate does not answer."""

from __future__ import annotations

from router.asking.ask import Ask
from router.asking.parameters import OTHER_NAMES, is_neutral
from router.errors import InvalidRequestError
from router.policies.rules import Rules
from router.values import Overrides


def sort_parameters(rules: Rules, index: int, ask: Ask, overrides: Overrides) -> tuple[tuple[str, ...], list[str]]:
    """Return which parameters of a request are left out for a candidate, and for which of them it does not answer.

    Both are sorted names. What is in neither goes to the candidate. A candidate that refuses `max_tokens` gets the
    bound as `max_completion_tokens`, if it takes that, and the other way round.

    index: the index of the candidate in the policy.
    """
    refused = rules.refused[index]
    if refused.isdisjoint(ask.given):
        return (), []
    found = [
        (name, value)
        for name in sorted(refused & ask.given.keys())
        if (value := ask.given[name]) is not None and OTHER_NAMES.get(name, name) in refused
    ]
    mode = rules.file.on_unsupported
    dropped = [
        name for name, value in found if mode == "drop_any" or (mode != "ineligible" and is_neutral(name, value))
    ]
    # A pinned candidate is asked whatever it refuses: the caller then gets its own word.
    broken = [] if overrides.pin is not None else [name for name, _ in found if name not in dropped]
    return tuple(dropped), broken


def refuse_request(candidate: str, parameter: str) -> None:
    """Raise InvalidRequestError for a parameter that a candidate refuses, under a policy that then refuses the request.

    So a request succeeds or fails whoever would have been chosen.
    """
    raise InvalidRequestError(
        f"{parameter} must be left out or be neutral: candidate {candidate!r} of the policy refuses it, and the policy "
        "refuses such requests (`on_unsupported: refuse`).",
        field=parameter,
    )

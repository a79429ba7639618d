"""Say who calls, what they may do, and how much of it (`Principal`), and keep it for the request in work."""

from __future__ import annotations

import contextvars
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from router.asking.session_ids import caller_of


class Scope(enum.StrEnum):
    """The things that a token can allow."""

    #: Decide requests, and read policies and models.
    ROUTE = "route"
    #: Decide requests and get them answered, which costs money.
    COMPLETE = "complete"
    #: Report how good answers were.
    FEEDBACK = "feedback"
    #: Change and watch the service itself.
    ADMIN = "admin"


class BeyondLimit(enum.StrEnum):
    """The ways in which requests are treated that would break a limit on strong answers or on money."""

    #: The request is refused.
    REFUSE = "refuse"
    #: The cheapest candidate that can answer does, whatever the policy would choose.
    CHEAP = "cheap"


class TokenLimits(pydantic.BaseModel):
    """Bounds what one token may use. A key that is left out sets no bound.

    Attributes:
        requests_per_second: the most requests a second, on average; as many may come at once. More are refused.
        requests_per_minute: the same for a minute.
        strong_share: the share of the token's requests, 0 to 1, that may be decided for a stronger candidate than the
            cheapest one that can answer. Of n requests in a row at most `strong_share` x n + 20 are; with a share of 0
            none is.
        usd_per_day: the most US dollars that the answers of one day (UTC) may cost. Where the cost of an answer is not
            known, its expected cost counts.
        beyond: `refuse` or `cheap`: what happens to requests that would break `strong_share` or `usd_per_day`.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    requests_per_second: float | None = pydantic.Field(None, gt=0, le=1e6, allow_inf_nan=False)
    requests_per_minute: float | None = pydantic.Field(None, gt=0, le=1e8, allow_inf_nan=False)
    strong_share: float | None = pydantic.Field(None, ge=0, le=1)
    usd_per_day: float | None = pydantic.Field(None, ge=0, allow_inf_nan=False)
    beyond: BeyondLimit = BeyondLimit.REFUSE


NO_LIMITS = TokenLimits.model_validate({})


@dataclass(frozen=True, slots=True)
class Principal:
    """Names a caller whose credential was checked.

    Attributes:
        id: a key of the caller that reveals no credential; sessions and caches are kept by it. Empty for somebody of
            whom nothing is known, because the service asks nobody for a token.
        label: the name under which metrics count the caller; there are few of them.
        scopes: what the caller may do.
        limits: how much of it.
        expires_at: the Unix time in seconds after which the credential is refused; None if it does not expire.
    """

    id: str
    label: str
    scopes: frozenset[Scope]
    limits: TokenLimits = NO_LIMITS
    expires_at: float | None = None


#: Everybody, if the service asks nobody for a token.
ANYBODY = Principal("", "anybody", frozenset(Scope))

#: Who sent the request that the current task works on. The guard of each door sets it before anything else happens.
current_principal: contextvars.ContextVar[Principal] = contextvars.ContextVar("current_principal", default=ANYBODY)


def caller_key(headers: Mapping[str, str]) -> str:
    """Return the key by which the caller of the current request is told apart: in sessions, caches and queues.

    It is the id of whoever was authenticated. Without authentication it is made of the credential in the headers, if
    there is one (`router.asking.session_ids.caller_of`).
    """
    return current_principal.get().id or caller_of(headers)


def read_limits(value: Any) -> TokenLimits:
    """Return the limits in a JSON value. Raises ValueError, which says what is wrong but quotes nothing."""
    try:
        return TokenLimits.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "limits"
        raise ValueError(f"{place}: {first['msg']}") from None

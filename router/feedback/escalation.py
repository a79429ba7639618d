"""Let a request go above the candidate whose answer to it was not good enough (`above_answerer`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from router.errors import InvalidRequestError, NoEligibleCandidateError, NoLedgerError
from router.policies.policy_file import PolicyFile
from router.quoting import quoted
from router.values import RouteQuery

#: Returns the name of the candidate that answered a decision, given the decision's id and the caller's key.
FindAnswerer: TypeAlias = Callable[[str, str], Awaitable[str]]


async def above_answerer(query: RouteQuery, file: PolicyFile, caller: str, find: FindAnswerer | None) -> RouteQuery:
    """Return a query that escalates with the candidates denied that are no stronger than the one that answered.

    Raises NoLedgerError without `find`, what `find` raises, InvalidRequestError if the policy does not have the
    candidate, and NoEligibleCandidateError if the candidate is the strongest one.
    """
    if find is None:
        raise NoLedgerError(
            "escalated_from needs a service that keeps a ledger; start it with --ledger.", field="escalated_from"
        )
    answerer = await find(query.escalated_from, caller)
    if answerer not in file.names:
        raise InvalidRequestError(
            f"escalated_from must be a decision of policy {file.name!r}; its answer came from {quoted(answerer)}, "
            "which is no candidate of this policy.",
            field="escalated_from",
        )
    up_to = file.names.index(answerer) + 1
    if up_to == len(file.names):
        raise NoEligibleCandidateError(
            f"{answerer} is the strongest candidate of policy {file.name!r}, so nobody is left to escalate to.",
            field="escalated_from",
        )
    denied = tuple(dict.fromkeys((*query.overrides.denied_candidates, *file.names[:up_to])))
    return replace(query, overrides=replace(query.overrides, denied_candidates=denied))

"""Read from the headers of a request its caller's own id of it, and the decision that it escalates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from router.asking.session_ids import MAX_ID_CHARACTERS
from router.errors import InvalidRequestError
from router.plain_json import whole_text
from router.quoting import quoted
from router.times import is_time_id
from router.values import RouteQuery

#: The header with the caller's own id of the request, which feedback may name.
REQUEST_ID_HEADER = "x-request-id"

#: The header with the id of the decision whose answer was not good enough.
ESCALATED_FROM_HEADER = "x-elle-escalated-from"


def with_origin(query: RouteQuery, headers: Mapping[str, str]) -> RouteQuery:
    """Return a query with the ids that the headers name. Names of headers are in lower case.

    A longer id of a request is left out, because it would not be found by its beginning.

    Raises InvalidRequestError if the decision that it escalates is not the id of one.
    """
    request_id = headers.get(REQUEST_ID_HEADER, "")
    escalated_from = query.escalated_from or headers.get(ESCALATED_FROM_HEADER, "")
    if escalated_from and not is_time_id(escalated_from):
        raise InvalidRequestError(
            f"escalated_from must be the id of a decision, got {quoted(escalated_from)}.", field="escalated_from"
        )
    if not request_id and not escalated_from:
        return query
    kept = whole_text(request_id) if len(request_id) <= MAX_ID_CHARACTERS else ""
    return replace(query, request_id=kept, escalated_from=escalated_from)

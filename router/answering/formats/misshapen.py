"""Say who is at fault if an adapter cannot read a value, because the value does not have the shape that it expects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from router.errors import UpstreamUnavailableError

#: The exceptions that Python and pydantic raise if a value is not of the shape that is expected.
MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextlib.contextmanager
def upstream_at_fault(into: str) -> Iterator[None]:
    """Turn the exceptions of a misshapen chat completion into UpstreamUnavailableError.

    into: what the chat completion is translated into, such as "a message of Anthropic's API".
    """
    try:
        yield
    except MISSHAPEN as error:
        raise UpstreamUnavailableError(
            f"the upstream sent a chat completion that cannot be translated into {into}."
        ) from error

"""Say who is at fault if an adapter cannot read a value, because the value does not have the shape that it expects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from router.errors import DispatchNotInstalledError, InvalidRequestError, UpstreamUnavailableError

#: The exceptions that Python and pydantic raise if a value is not of the shape that is expected.
MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextlib.contextmanager
def caller_at_fault(message: str, *, field: str, plainest: Callable[[], object]) -> Iterator[None]:
    """Turn the exceptions of a misshapen request into InvalidRequestError, unless the adapter itself is at fault.

    Args:
        message: says what is wrong with the request; the adapter's own words may quote the prompt.
        field: the field of the request that is at fault.
        plainest: translates the plainest request. If even this fails, LiteLLM has changed its adapter, for which no
            caller can do anything: DispatchNotInstalledError.
    """
    try:
        yield
    except Exception as error:
        if not _is_about_shape(error):
            raise
        try:
            plainest()
        except Exception as broken:
            if not _is_about_shape(broken):
                raise
            changed = DispatchNotInstalledError(
                "the adapters of the installed LiteLLM are not those that this version knows, so no request can be "
                "translated for candidates of other providers."
            )
            changed.counts = False
            raise changed from broken
        raise InvalidRequestError(message, field=field) from error


@contextlib.contextmanager
def upstream_at_fault(into: str) -> Iterator[None]:
    """Turn the exceptions of a misshapen chat completion into UpstreamUnavailableError.

    into: what the chat completion is translated into, such as "a message of Anthropic's API".
    """
    try:
        yield
    except Exception as error:
        if not _is_about_shape(error):
            raise
        raise UpstreamUnavailableError(
            f"the upstream sent a chat completion that cannot be translated into {into}."
        ) from error


def _is_about_shape(error: Exception) -> bool:
    """Return whether an exception says that a value has another shape than the adapter expects.

    LiteLLM turns some of them into exceptions of its own. Ours say what else went wrong.
    """
    return isinstance(error, MISSHAPEN) or type(error).__module__.partition(".")[0] == "litellm"

"""Every error has a status, and each exception of LiteLLM and the libraries beneath it becomes one of our errors."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from router import errors
from router.answering.reading.retry_after import retry_after_s
from router.answering.upstreams.litellm_errors import ERRORS_BY_NAME, error_class_of
from router.attempts import Attempt, AttemptOutcome
from router.errors import DispatchError
from router.wire import deliveries


def test_every_exception_of_litellm_is_mapped() -> None:
    import litellm.exceptions

    raised = {
        name
        for name, value in vars(litellm.exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert raised - ERRORS_BY_NAME.keys() == set()


@pytest.mark.parametrize("library", [openai, httpx, aiohttp])
def test_what_the_libraries_beneath_raise_of_a_call_is_mapped(library: Any) -> None:
    # Of no call: wrong set-up, wrong use, or helpers that we do not use.
    unused = {
        *("LengthFinishReasonError", "ContentFilterFinishReasonError"),
        *("InvalidWebhookSignatureError", "InvalidURL", "CookieConflict", "WebSocketQueueFullError"),
        *("StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead", "RequestNotRead"),
        *("WebSocketError", "WSMessageTypeError", "EofStream"),
        *("BadContentDispositionHeader", "BadContentDispositionParam"),
    }
    raised = [
        value for value in list(vars(library).values()) if inspect.isclass(value) and issubclass(value, Exception)
    ]
    unmapped = {one.__name__ for one in raised if error_class_of(one.__new__(one)) is None}
    assert unmapped - unused == set()


def test_every_error_of_the_router_has_a_status_that_grpc_knows() -> None:
    import grpc

    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.RouterError):
            assert value.status in grpc.StatusCode.__members__


def test_every_error_of_dispatch_says_what_to_do() -> None:
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, DispatchError) and value is not DispatchError:
            assert value.hint, value


def test_a_status_carries_the_last_of_many_attempts() -> None:
    attempts = [Attempt(f"candidate {i}", AttemptOutcome.UNAVAILABLE) for i in range(100)]
    carried = deliveries.failed_delivery_to_wire(attempts)
    assert [one.candidate for one in carried.attempts] == [f"candidate {i}" for i in range(60, 100)]
    assert carried.ByteSize() < 4096


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e12", 600.0),
        ("Tue, 24 Nov 2026 00:00:09 GMT", 9.0),
        ("Mon, 23 Nov 2026 23:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_of_its_spellings(value: str, wanted: float | None) -> None:
    assert retry_after_s(value, datetime(2026, 11, 24, tzinfo=UTC)) == wanted

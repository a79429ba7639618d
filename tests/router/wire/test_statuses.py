"""Statuses fit into the trailers that clients take, whatever an error says."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2

from router.attempts import Attempt, AttemptOutcome
from router.errors import InvalidRequestError, RouterError, UpstreamRejectedError, UpstreamUnavailableError
from router.pb import routing_pb2
from router.wire.service_errors import service_error
from router.wire.statuses import status_of

#: Bytes of trailers that clients of grpc take unless told otherwise.
CLIENTS_TAKE = 8192


def size(error: Exception) -> int:
    status = status_of(error)
    return len(quote(status.message)) + len(base64.b64encode(status.SerializeToString())) + 300


@pytest.mark.parametrize("letter", ["x", "%", "\u4f60", "\n", "\U0001f600", "\ud800"])
def test_a_long_message_is_cut_and_says_so(letter: str) -> None:
    error = InvalidRequestError(letter * 100_000, field=letter * 100_000)
    assert size(error) < CLIENTS_TAKE
    assert status_of(error).message.endswith("(cut; 100,000 characters in all)")


def test_a_message_of_usual_length_is_whole() -> None:
    message = "candidate must be one of those, got \u00e9. " * 20
    assert status_of(InvalidRequestError(message)).message == message


def test_of_many_attempts_the_last_ones_are_told() -> None:
    error = UpstreamUnavailableError("\u4f60" * 5000)
    error.attempts = tuple(Attempt(f"{i:0128}", AttemptOutcome.UNAVAILABLE, 503, 1.5) for i in range(100))
    assert size(error) < CLIENTS_TAKE
    delivery = routing_pb2.Delivery()
    (found,) = (detail for detail in status_of(error).details if detail.Is(delivery.DESCRIPTOR))
    found.Unpack(delivery)
    assert len(delivery.attempts) > 5
    assert delivery.attempts[-1].candidate == f"{99:0128}"


def test_words_of_a_provider_that_are_no_unicode_are_told_all_the_same() -> None:
    assert status_of(UpstreamRejectedError("It says: \ud83d")).message.startswith("It says: \ufffd")


def test_every_status_says_whether_to_retry() -> None:
    for error in (RouterError("x"), InvalidRequestError("x")):
        info = error_details_pb2.ErrorInfo()
        assert status_of(error).details[0].Unpack(info)
        assert info.metadata["retryable"] == "false"


def test_the_providers_own_names_of_an_error_reach_the_client() -> None:
    error = UpstreamRejectedError("x")
    error.provider_code, error.provider_param = "content_filter", "messages"
    told = service_error(status_of(error))
    assert (told.service_reason, told.provider_code, told.provider_param) == (
        *("UPSTREAM_REJECTED", "content_filter", "messages"),
    )
    told = service_error(status_of(UpstreamRejectedError("x")))
    assert (told.provider_code, told.provider_param) == (None, None)

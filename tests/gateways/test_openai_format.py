"""Every error of ours has an HTTP status, and clients find in it what OpenAI's has."""

from __future__ import annotations

import inspect

import pytest

from router import errors
from router.deciding.pipeline import Router
from router.gateways.http.anthropic_format import ANTHROPIC_FORMAT
from router.gateways.http.decision_format import ALL_HEADERS, decision_headers
from router.gateways.http.http_api import HTTP_STATUS
from router.gateways.http.openai_format import OPENAI_FORMAT
from router.gateways.http.responses_format import RESPONSES_FORMAT
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy

ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.RouterError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_an_http_status(kind):
    assert 400 <= HTTP_STATUS[kind.status] < 600


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (errors.UnknownModelError("m", field="model"), 404, "model_not_found", "invalid_request_error"),
        (errors.InvalidRequestError("m", field="messages"), 400, "invalid_request", "invalid_request_error"),
        (errors.NotReadyError("m"), 503, "not_ready", "server_error"),
    ],
)
def test_errors_become_openai_error_objects(error, status, code, kind):
    got, headers, body = OPENAI_FORMAT.error_reply(error)
    told = {"message": "m", "type": kind, "param": error.field, "code": code, "retryable": error.retryable}
    assert (got, body) == (status, {"error": told})
    assert headers["x-elle-error"] == error.reason
    assert headers.get("retry-after") == ("2" if status == 503 else None)


def test_an_overloaded_router_says_when_to_come_back():
    status, headers, body = OPENAI_FORMAT.error_reply(errors.OverloadedError("full", retry_after_s=0.2))
    assert (status, headers["retry-after"], body["error"]["type"]) == (429, "1", "rate_limit_error")


def test_a_decision_is_told_in_headers(tmp_path):
    policy = load(tmp_path)
    decision = policy.decide(RouteQuery.from_prompt("hello"))
    headers = decision_headers(decision)
    assert headers["x-elle-candidate"] == decision.chosen
    assert headers["x-elle-decision-id"] == decision.decision_id
    assert float(headers["x-elle-gain"]) == pytest.approx(decision.gain, abs=1e-6)
    assert set(headers) < set(ALL_HEADERS)
    pinned = decision_headers(policy.decide(RouteQuery.from_prompt("hello", overrides=Overrides(pin="small"))))
    assert "x-elle-gain" not in pinned
    assert pinned["x-elle-reason"] == "PINNED"


def load(folder):
    from router.policies.loading import load_policies

    policies = load_policies([write_policy(folder)])
    encoder = FakeEncoder()
    return Router(policies, {encoder.spec.identity: encoder})


@pytest.mark.parametrize(
    "api", [OPENAI_FORMAT, RESPONSES_FORMAT, ANTHROPIC_FORMAT], ids=lambda api: api.api_format.value
)
def test_the_providers_own_code_and_param_stand_in_every_error_object(api):
    error = errors.UpstreamRejectedError("m")
    error.provider_code, error.provider_param = "content_filter", "messages"
    told = api.error_body(error, 400)["error"]
    assert (told["code"], told["param"], told["message"][0]) == ("content_filter", "messages", "m")
    told = api.error_body(errors.UpstreamRejectedError("m"), 400)["error"]
    assert (told["code"], told["param"]) == ("upstream_rejected", None)

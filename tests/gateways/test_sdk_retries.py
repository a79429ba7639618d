"""The SDKs of OpenAI and Anthropic retry on every API what is worth it, after the wait that the provider asks for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.http_server import serve_on_loopback
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.anthropic_door.message_upstream import MessageUpstream
from tests.gateways.chat_upstream import ChatUpstream
from tests.gateways.loopback import in_thread
from tests.gateways.responses_door.response_upstream import ResponseUpstream

HELLO: Any = [{"role": "user", "content": "hello"}]

WAIT_S = "0.3"


@dataclass
class Upstreams:
    """An upstream of each API, busy the first time that it is asked for a model `busy-...`, and down for `down-...`."""

    asked: Counter[str] = field(default_factory=Counter)

    def app(self) -> Starlette:
        answers = {
            "/v1/chat/completions": ChatUpstream()._complete,
            "/v1/responses": ResponseUpstream()._answer,
            "/v1/messages": MessageUpstream()._answer,
        }

        async def answer(request: Request) -> Response:
            model = json.loads(await request.body())["model"]
            self.asked[model] += 1
            error = {"type": "error", "error": {"type": "rate_limit_error", "message": "no room", "code": "busy"}}
            if model.startswith("busy") and self.asked[model] == 1:
                return JSONResponse(error, 429, {"retry-after": WAIT_S})
            if model.startswith("down"):
                return JSONResponse({"error": {"type": "api_error", "message": "no room"}}, 500)
            return await answers[request.url.path](request)

        return Starlette(routes=[Route(path, answer, methods=["POST"]) for path in answers])


#: For each API how the model string of a candidate begins that speaks it.
MODELS = {"chat": "openai/{}", "responses": "openai/{}", "messages": "anthropic/{}"}

#: Streams of candidates that speak the API, and whole answers of those for which requests are translated. The suites of
#: the SDKs beside this file have the whole answers of the former.
WAYS = [
    *((api, "direct", True) for api in MODELS),
    *((api, "translated", False) for api in ("responses", "messages")),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Upstreams]]:
    folder, upstreams = tmp_path_factory.mktemp("policies"), Upstreams()
    with pytest.MonkeyPatch.context() as patch, in_thread(serve_on_loopback(upstreams.app())) as url:
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        candidates = []
        for api, way, _ in WAYS:
            for state in ("busy", "down"):
                name = f"{state}-{api}-{way}"
                model = MODELS[api if way == "direct" else "chat"].format(name)
                base = url.removesuffix("/v1") if model.startswith("anthropic/") else url
                speaks = {"speaks": ["responses"]} if (api, way) == ("responses", "direct") else {}
                candidates.append({"name": name, "model": model, "api_base": base, "retries": 0, **speaks})
        rule = {"kind": "fixed", "candidate": candidates[0]["name"]}
        fixed: dict[str, Any] = {"rule": rule, "probe": None, "safe_default": candidates[0]["name"]}
        policy = write_policy(folder, candidates=candidates, **fixed)
        with in_thread(serving(ServerSettings(policies=(policy,), port=0, drain_s=1, http=HttpGateway()))) as running:
            yield f"http://{running.http_address}", upstreams


def ask(root: str, api: str, model: str, *, streamed: bool) -> None:
    """Ask with the SDK of the API and its own retries, two at most."""
    if api == "messages":
        with anthropic.Anthropic(api_key="k", base_url=root) as sdk:
            answer: Any = sdk.messages.create(model=model, max_tokens=9, messages=HELLO, stream=streamed)
            assert not streamed or list(answer)
        return
    with openai.OpenAI(api_key="k", base_url=f"{root}/v1") as client:
        if api == "chat":
            answer = client.chat.completions.create(model=model, messages=HELLO, stream=streamed)
        else:
            answer = client.responses.create(model=model, input="hello", stream=streamed)
        assert not streamed or list(answer)


@pytest.mark.parametrize(("api", "way", "streamed"), WAYS)
def test_an_sdk_waits_as_long_as_the_provider_asks_and_then_gets_its_answer(
    stack: tuple[str, Upstreams], api: str, way: str, streamed: bool
) -> None:
    root, upstreams = stack
    name = f"busy-{api}-{way}"
    upstreams.asked.clear()
    ask(root, api, name, streamed=streamed)
    assert upstreams.asked[name] == 2


@pytest.mark.parametrize(("api", "way", "streamed"), WAYS)
def test_an_sdk_does_not_repeat_what_the_router_has_given_up(
    stack: tuple[str, Upstreams], api: str, way: str, streamed: bool
) -> None:
    root, upstreams = stack
    name = f"down-{api}-{way}"
    upstreams.asked.clear()
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
        ask(root, api, name, streamed=streamed)
    assert upstreams.asked[name] == 1


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
def test_the_wait_is_told_in_seconds_and_in_milliseconds(stack: tuple[str, Upstreams], path: str) -> None:
    root, upstreams = stack
    api = path.partition("/")[0]
    upstreams.asked.clear()
    body = {"model": f"busy-{api}-direct", "max_tokens": 9, "input" if api == "responses" else "messages": HELLO}
    # A key of the caller's own makes no difference: every request is answered anew.
    headers = {"idempotency-key": "one"}
    refused = httpx.post(f"{root}/v1/{path}", json=body, headers=headers, timeout=60)
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["retry-after-ms"]) == (429, "1", "300")
    assert "x-should-retry" not in refused.headers
    assert refused.json()["error"]["code"] == "busy"
    statuses = [refused.status_code]
    while statuses[-1] != 200:
        statuses.append(httpx.post(f"{root}/v1/{path}", json=body, headers=headers, timeout=60).status_code)
    # Until the wait is over nobody asks the provider.
    assert set(statuses) <= {429, 503, 200}
    assert upstreams.asked[body["model"]] == 2

"""Tests of the names that `model` may have: the same at every HTTP door, listed, and hinted at if they are near."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from router.deciding import pipeline
from router.errors import UnknownModelError
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.http.request_body import model_names, overrides_from_model
from router.policies.loading import load_policy
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.loopback import in_thread

SAID = "What is a heat pump?"
DOORS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SAID}]},
    "/v1/responses": {"input": SAID},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": SAID}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": SAID}]},
    "/v1/completions": {"prompt": SAID},
    "/v1/embeddings": {"input": SAID},
    "/v1/systemone": {
        "state": SAID,
        "questions": {"tier": {"type": "choice", "criteria": {"small": "easy", "large": "hard"}}},
    },
    "/v1/decisions": {
        "input": SAID,
        "questions": [{"type": "choice", "choices": [{"value": "small"}, {"value": "large"}]}],
    },
}
#: For each name of a model the policy that decides, and the candidate that is pinned.
MEANT: dict[str, tuple[str, str | None]] = {
    "auto": ("default", None),
    "elle": ("default", None),
    "elle-default": ("default", None),
    "elle/default": ("default", None),
    "elle-default:economy": ("default:economy", None),
    "elle-other": ("other", None),
    "claude-haiku-4-5-20251001": ("default:economy", None),
    "claude-haiku-4-5": ("default", "large"),
    "small-fast": ("default", "small"),
    "anything": ("other", None),
    "large": ("default", "large"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a service whose policy has names of an agent's models."""
    folder = tmp_path_factory.mktemp("names")
    aliases = {"claude-haiku-*": "economy", "claude-*": "default", "claude-haiku-4-5": "large", "small-fast": "small"}
    profiles = {"economy": {"rule": {"kind": "gain", "thresholds": [0.9]}}}
    policies = (
        write_policy(folder, name="default", aliases=aliases, profiles=profiles),
        write_policy(folder, name="other", aliases={"anything": "other"}),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=HttpGateway()))) as running:
            yield f"http://{running.http_address}"


def post(root: str, path: str, model: Any) -> httpx.Response:
    return httpx.post(f"{root}{path}", json={"model": model, **DOORS[path]}, timeout=60)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/systemone"])
def test_a_name_means_the_same_at_every_door_that_decides(root: str, path: str) -> None:
    for model, (policy, pinned) in MEANT.items():
        reply = post(root, path, model)
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-elle-policy"] == policy, model
        assert (reply.headers["x-elle-reason"] == "PINNED") == (pinned is not None), model
        assert pinned in {None, reply.headers["x-elle-candidate"]}, model


@pytest.mark.parametrize("path", DOORS)
def test_a_name_that_is_nearly_right_is_hinted_at_by_every_door(root: str, path: str) -> None:
    for wrong, near in {"elle-defualt": "elle-default", "smal": "small", "claud-haiku-4-5": "claude-haiku-4-5"}.items():
        reply = post(root, path, wrong)
        assert reply.status_code == 404
        assert f"got '{wrong}'. Did you mean {near}?" in reply.json()["error"]["message"]
    assert "Did you mean" not in post(root, path, "gpt-4o" * 100).json()["error"]["message"]


def test_a_name_of_another_service_is_answered_with_how_to_give_it_a_meaning(root: str) -> None:
    message = post(root, "/v1/chat/completions", "gemini-2.5-pro").json()["error"]["message"]
    assert message.endswith("got 'gemini-2.5-pro'. `aliases` in a policy give a client's own names a meaning.")


@pytest.mark.parametrize(
    ("path", "near"),
    {
        "/chat/completions": "/v1/chat/completions",
        "/v1/v1/messages": "/v1/messages",
        "/v1/response": "/v1/responses",
    }.items(),
)
def test_a_path_that_is_nearly_right_is_hinted_at(root: str, path: str, near: str) -> None:
    assert httpx.post(f"{root}{path}", json={}).json()["error"]["message"].endswith(f" Did you mean POST {near}?")
    assert "Did you mean" not in httpx.post(f"{root}/images", json={}).text


ODD_PATHS = [
    *("/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/openai/v1/chat/completions"),
    *("/openai/v1/responses/", "/v1/messages/?beta=true"),
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_slashes_that_base_urls_add_and_azures_newer_paths_lead_to_the_same_door(root: str, path: str) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    body = {"model": "auto", "max_tokens": 5, "input" if "responses" in path else "messages": hello}
    reply = httpx.post(root + path, json=body)
    assert reply.status_code == 200, reply.text
    assert "x-elle-answered-by" in reply.headers
    for models in ("/v1/models/", "/openai/v1/models", "//v1/models"):
        assert httpx.get(root + models).json()["object"] == "list"
    assert httpx.post(f"{root}/openai/v1", json=body).status_code == 404


@pytest.mark.parametrize("path", DOORS)
def test_a_body_without_a_name_says_what_one_looks_like(root: str, path: str) -> None:
    reply = post(root, path, None)
    assert reply.status_code == 400
    assert "model must be text, such as" in reply.json()["error"]["message"]


def test_the_sdks_of_openai_and_anthropic_list_the_names_and_look_each_up(root: str) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{root}/v1") as sdk:
        listed = [model.id for model in sdk.models.list()]
        assert listed[:4] == ["auto", "elle/default", "elle/default:economy", "elle/other"]
        assert set(listed[4:]) == {"small", "large", "claude-haiku-4-5", "small-fast", "anything"}
        for model in {**MEANT, "claude-opus-9": None}:
            assert sdk.models.retrieve(model).id == model
        about: Any = sdk.models.retrieve("claude-haiku-4-5-20251001")
        assert about.elle == {"kind": "alias", "of": "default:economy"}
        with pytest.raises(openai.NotFoundError, match=r"Did you mean small\?"):
            sdk.models.retrieve("smalll")
    with anthropic.Anthropic(api_key="k", base_url=root) as client:
        assert [model.id for model in client.models.list(limit=1000)] == listed
        assert client.models.retrieve("elle-default").display_name == "elle-default"


def test_a_long_list_of_names_is_cut_in_errors_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("many")
    policy = load_policy(write_policy(folder, name="default", aliases={f"name-{n}": "small" for n in range(1000)}))
    policies = {"default": policy}
    assert len(model_names(policies)) == 1 + 1 + 2 + 1000
    with pytest.raises(
        UnknownModelError, match=r"name-\d+ and 954 more, which GET /v1/models lists, got 'nobody'"
    ) as e:
        overrides_from_model("nobody", policies)
    assert len(str(e.value)) < 1500

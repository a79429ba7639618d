"""Fixtures of the tests of the OpenAI door: one running service for the whole folder, and the Python SDK."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.loopback import in_thread
from tests.gateways.openai_door.door_stack import MAX_BODY_BYTES, Stack, write_door_policies
from tests.router.faults import upstream_in_thread


@pytest.fixture(scope="package")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, encoder = tmp_path_factory.mktemp("policies"), FakeEncoder()
    with (
        pytest.MonkeyPatch.context() as patch,
        running_chat_upstream() as (chat, chat_url),
        upstream_in_thread() as (faulty, _),
    ):
        patch.setattr(pipeline, "load_encoder", lambda *_: encoder)
        policies = write_door_policies(folder, chat_url, faulty.url)
        door = HttpGateway(max_body_bytes=MAX_BODY_BYTES)
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=door))) as running:
            url = f"http://{running.http_address}/v1"
            yield Stack(url, running.address, chat, chat_url, faulty, encoder)


@pytest.fixture
def stack(_world: Stack) -> Stack:
    _world.chat.sent.clear()
    _world.chat.unsteady.asked.clear()
    _world.faulty.seen.clear()
    return _world


@pytest.fixture
def sdk(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-caller", base_url=stack.url, max_retries=0) as sdk:
        yield sdk

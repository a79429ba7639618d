"""The HTTP door says whose a request is, by host and by credential, so that callers take turns at the encoder."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from router.deciding.encode_pool import EncodePool
from router.wire.turns import Turns
from tests.gateways.openai_door.door_stack import Stack


def test_hosts_and_credentials_take_turns(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    submit = EncodePool.submit

    def watched(pool: EncodePool, text: str, **options: Any) -> Any:
        seen.append(options["who"])
        return submit(pool, text, **options)

    monkeypatch.setattr(EncodePool, "submit", watched)
    for number, key in enumerate(("sk-one", "sk-two", "sk-one")):
        body = {"model": "elle/test", "messages": [{"role": "user", "content": f"whose turn is it, {number}?"}]}
        assert stack.post(body, authorization=f"Bearer {key}").status_code == 200
    assert {(host, connection) for host, connection, _ in seen} == {("127.0.0.1", "127.0.0.1:")}
    credentials = [credential for _, _, credential in seen]
    assert credentials[0] == credentials[2] != credentials[1]


def test_requests_of_one_connection_that_are_sent_ahead_begin_and_are_answered_in_turn(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    wait = Turns.wait

    async def watched(turns: Turns, connection: str) -> None:
        waited.append(connection)
        await wait(turns, connection)

    monkeypatch.setattr(Turns, "wait", watched)
    body = json.dumps({"model": "elle/test", "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    one = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    host, port = stack.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection, connection.makefile("rb") as answers:
        # All are sent ahead, and each is answered in its turn.
        connection.sendall(one * 10)
        for _ in range(10):
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                length = int(value) if name == "content-length" else length
            assert json.loads(answers.read(length))["elle"]["candidate"]
    assert waited == ["127.0.0.1:"] * 10

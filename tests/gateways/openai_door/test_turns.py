"""The HTTP door says whose a request is, by host and by credential, so that callers take turns at the encoder."""

from __future__ import annotations

from typing import Any

import pytest

from router.deciding.encode_pool import EncodePool
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

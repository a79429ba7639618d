"""While it serves, the service fetches nothing and imports nothing in its event loop, whatever LiteLLM is asked for."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from router.client import RouterClient
from router.values import Overrides
from tests.gateways.anthropic_door.message_upstream import running_message_upstream
from tests.gateways.chat_upstream import running_chat_upstream
from tests.watched_processes import watched_in

#: `elle`, which notes every module that is imported once the file `started` is there, and in which thread.
NOTING = """
import atexit, os, pathlib, sys, threading
os.environ["SOME_KEY"] = "sk-test"
seen = []
def note(event, arguments):
    if event == "import" and os.path.exists("started"):
        seen.append(f"{threading.current_thread().name} {arguments[0]}")
sys.addaudithook(note)
@atexit.register
def tell():
    kinds = [sys.modules["litellm"].utils.huggingface_tokenizer_kind(f"x/up-llama-{n}-8b") for n in (2, 3)]
    pathlib.Path("imported").write_text("\\n".join((str(kinds), *seen)))
from router.cli.main import main
main()
"""

#: Models by the name of their candidate: over our own connection, and through LiteLLM's code of several providers. For
#: the names with `llama` LiteLLM has a tokenizer at a hub.
MODELS = {
    "direct": "openai/up-x",
    "llama-3": "hosted_vllm/up-llama-3-8b",
    "llama-2": "together_ai/up-llama-2-7b",
    "mistral": "mistral/up-mistral-large",
    "claude": "anthropic/claude-x",
    "gemini": "gemini/gemini-2.0-flash",
}

PIXEL = "data:image/png;base64,iVBORw0KGgo="

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]

PICTURE = [
    {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]}
]


def write_policy(path: Path, chat_url: str, messages_url: str) -> None:
    able = {"capabilities": ["text", "image", "tools", "json_schema"], "retries": 0, "break_after": 1000}
    candidates = [
        {"name": name, "model": model, "api_base": messages_url if name == "claude" else chat_url}
        | {"api_key_env": "SOME_KEY", "timeout_s": 20, **able}
        for name, model in MODELS.items()
    ]
    rule = {"kind": "fixed", "candidate": "direct"}
    policy = {"schema": "elle.policy/1", "name": "p", "candidates": candidates, "rule": rule, "safe_default": "direct"}
    path.write_text(yaml.safe_dump(policy))


def bodies(model: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a request of every kind, with its path."""
    chats: list[dict[str, Any]] = [
        {"messages": HELLO},
        {"messages": HELLO, "tools": [TOOL]},
        {"messages": PICTURE},
        {"messages": HELLO, "response_format": {"type": "json_object"}},
        {"messages": HELLO, "max_tokens": "many"},
    ]
    all_chats = [
        ("/v1/chat/completions", {"model": model, **chat, "stream": s}) for chat in chats for s in (False, True)
    ]
    message = {"model": model, "messages": HELLO, "max_tokens": 9}
    response = {"model": model, "input": "hello"}
    return [
        *all_chats,
        *(("/v1/messages", message | {"stream": stream}) for stream in (False, True)),
        *(("/v1/responses", response | {"stream": stream}) for stream in (False, True)),
        ("/v1/messages/count_tokens", message),
        ("/v1/embeddings", response),
        ("/v1/chat/completions", {"model": "nobody", "messages": HELLO}),
    ]


def announced(process: Any) -> tuple[str, str]:
    """Return the addresses of gRPC and of HTTP, once both are served."""
    said = [process.stderr.readline()]
    while "/v1" not in said[-1]:
        assert said[-1], said
        said.append(process.stderr.readline())
    (grpc,) = [line.split()[-1] for line in said if line.startswith("serving ")]
    return grpc, said[-1].split()[-1].removesuffix("/v1")


def test_no_host_is_asked_and_no_module_imported_in_the_event_loop(tmp_path: Path) -> None:
    watched = watched_in(tmp_path)
    with running_chat_upstream() as (_, chat_url), running_message_upstream() as (_, messages_url):
        write_policy(watched.work / "policy.yaml", chat_url, messages_url)
        serve = ("serve", "--policy", "policy.yaml", "--port", "0", "--http", "0", "--drain-delay-s", "0")
        process = watched.start(sys.executable, "-c", NOTING, *serve)
        try:
            grpc, url = announced(process)
            (watched.work / "started").touch()
            with httpx.Client(base_url=url, timeout=120) as http, RouterClient(grpc, timeout_s=60) as client:
                statuses = {
                    name: [http.post(path, json=body).status_code for path, body in bodies(name)] for name in MODELS
                }
                assert http.get("/v1/models").status_code == http.get("/healthz").status_code == 200
                assert http.get("/v1/nothing").status_code == 404
                assert client.complete("hello", Overrides(pin="llama-3")).text
                assert "".join(step.text for step in client.stream("hello", Overrides(pin="llama-3")))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    # What is asked works where the upstream speaks the API; the errors of the others are what is tested there.
    assert all(status == 200 for name in ("direct", "llama-3", "llama-2") for status in statuses[name][:4]), statuses
    assert not {500} & {status for column in statuses.values() for status in column}, json.dumps(statuses)
    assert not watched.foreign()
    kinds, *imported = (watched.work / "imported").read_text().splitlines()
    # The names above say something only as long as LiteLLM has tokenizers of a hub for them.
    assert kinds == "['llama2', 'llama3']"
    assert any(line.startswith("litellm") for line in imported), "nothing was noted"
    assert [line for line in imported if line.startswith("MainThread ")] == []

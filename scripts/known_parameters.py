"""Write router/policies/candidates/known_parameters.json: what the pinned LiteLLM says that known models refuse.

Run it with `python -m scripts.known_parameters` after LiteLLM's version was raised. It asks LiteLLM itself to build a
request with each parameter for each chat model of its table, and sends one request for each provider to a server of its
own, to see which unknown fields and content parts arrive. Nothing leaves the machine. It takes a minute.
"""

from __future__ import annotations

import asyncio
import http.server
import importlib.metadata
import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Any

from router.answering.upstream import Upstream
from router.answering.upstreams.litellm_import import import_litellm
from router.policies.candidates.candidate import Candidate
from router.policies.candidates.known_parameters import FILE, longest_beginning
from router.values import Overrides, RouteQuery

#: A value of each parameter that a caller may send, and that asks for something.
SAMPLES: Mapping[str, Any] = {
    "frequency_penalty": 0.5,
    "function_call": "none",
    "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
    "logit_bias": {"1": 1},
    "logprobs": True,
    "modalities": ["text", "audio"],
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 7,
    "service_tier": "default",
    "stop": ["x"],
    "temperature": 0.5,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tool_choice": "auto",
    "top_logprobs": 2,
    "top_p": 0.5,
    "verbosity": "low",
    "web_search_options": {},
}

#: Providers that would ask the network for a login, and those whose models are not asked by chats.
_LEFT_OUT = frozenset({"chatgpt", "github_copilot", "microsoft_365_copilot", "fal_ai"})

_HELLO = [{"role": "user", "content": "hello"}]

_CHATS = frozenset({"chat", "responses", "completion"})

Refused = tuple[str, ...]


def refused_by_models() -> dict[str, dict[str, Refused]]:
    """Return by provider and model what LiteLLM refuses to send."""
    litellm = import_litellm()
    found: dict[str, dict[str, Refused]] = defaultdict(dict)
    for model, entry in litellm.model_cost.items():
        if entry.get("mode") not in _CHATS or "*" in model or entry.get("litellm_provider") in _LEFT_OUT:
            continue
        try:
            name, provider, _, _ = litellm.get_llm_provider(model)
        except litellm.BadRequestError:
            name, provider = model, entry["litellm_provider"]
        if provider not in _LEFT_OUT:
            found[provider][name] = _refused(name, provider)
    return dict(found)


def _refused(model: str, provider: str) -> Refused:
    litellm = import_litellm()
    refused = []
    for parameter, value in SAMPLES.items():
        try:
            litellm.utils.get_optional_params(model=model, custom_llm_provider=provider, **{parameter: value})
        except litellm.UnsupportedParamsError:
            refused.append(parameter)
        except Exception as error:
            # Some providers need more than a parameter to build a request. That is no refusal of the parameter.
            logging.debug("%s %s %s: %s", provider, model, parameter, error)
    return tuple(sorted([*refused, *_renamed(model, provider)]))


def _renamed(model: str, provider: str) -> Refused:
    """Return `max_tokens` if a model of OpenAI's takes only `max_completion_tokens`, into which LiteLLM renames it."""
    if provider != "openai":
        return ()
    built = import_litellm().utils.get_optional_params(model=model, custom_llm_provider=provider, max_tokens=5)
    return () if "max_tokens" in built else ("max_tokens",)


def shortened(models: Mapping[str, Refused], unknown: Refused) -> dict[str, Refused]:
    """Return the models without those for which the longest known beginning of their name says the same."""
    kept: dict[str, Refused] = {}
    for model in sorted(models, key=lambda name: (len(name), name)):
        beginning = longest_beginning(model, kept)
        if models[model] != (unknown if beginning is None else kept[beginning]):
            kept[model] = models[model]
    return kept


async def what_arrives(providers: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the providers to which LiteLLM itself hands on unknown fields, and those of them that we send such parts.

    Others that get the parts do not speak OpenAI's format.
    """
    litellm, upstream = import_litellm(), Upstream()
    await upstream.load()
    sent: list[bytes] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _recorder(sent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    content = [{"type": "text", "text": "hello"}, {"type": "hologram", "hologram": "unknown part"}]
    fields, parts = [], []
    for provider in sorted(providers):
        asked = {"model": f"{provider}/m", "api_base": url, "api_key": "none", "messages": _HELLO, "max_retries": 0}
        bodies = await _sent(sent, litellm.acompletion(**asked, extra_body={"unknown_field": 1}, timeout=5))
        fields += [provider] * any(body.get("unknown_field") == 1 for body in bodies)
        candidate = Candidate(name="c", model=f"{provider}/m", api_base=url, timeout_s=5)
        query = RouteQuery(({"role": "user", "content": content},), overrides=Overrides(pin="c"))
        bodies = await _sent(sent, upstream.complete(candidate, query))
        parts += [provider] * any(content == m.get("content") for body in bodies for m in body.get("messages", ()))
    server.shutdown()
    await upstream.aclose()
    return fields, sorted({*fields} & {*parts})


async def _sent(sent: list[bytes], call: Awaitable[Any]) -> list[Any]:
    """Return the bodies that a call sends."""
    sent.clear()
    try:
        await asyncio.wait_for(call, 10)
    except Exception as error:
        # The server's answer is no answer. What counts is what it was sent.
        logging.debug("%s", error)
    return [json.loads(body) for body in sent if body.startswith(b"{")]


def _recorder(sent: list[bytes]) -> type[http.server.BaseHTTPRequestHandler]:
    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers.get("content-length", 0))))
            self.send_response(418)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    return Recorder


def table() -> dict[str, Any]:
    """Return the table as it is written to the file."""
    models = refused_by_models()
    asked = {str(getattr(one, "value", one)) for one in import_litellm().provider_list} - _LEFT_OUT
    unknown = {provider: _refused("a-model-that-nobody-knows", provider) for provider in asked | models.keys()}
    short = {provider: shortened(known, unknown[provider]) for provider, known in models.items()}
    counted = Counter(refused for known in short.values() for refused in known.values())
    counted.update(unknown.values())
    sets = [refused for refused, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
    number = {refused: index for index, refused in enumerate(sets)}
    fields, parts = asyncio.run(what_arrives(asked))
    return {
        "litellm": importlib.metadata.version("litellm"),
        "passes_fields": fields,
        "passes_parts": parts,
        "refused": sets,
        "unknown_models": {provider: number[refused] for provider, refused in sorted(unknown.items())},
        "models": {
            provider: {model: number[refused] for model, refused in sorted(known.items())}
            for provider, known in sorted(short.items())
            if known
        },
    }


def main() -> None:
    """Write the table."""
    logging.disable(logging.CRITICAL)
    Path(FILE).write_text(json.dumps(table(), indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()

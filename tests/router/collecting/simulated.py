"""Upstreams on loopback whose models know some kinds of prompts, and which count what they are paid for."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KINDS = ("spelling", "capital", "sum", "proof")

#: Which kinds each model answers well. The strong one knows all of them.
ABILITIES = {
    "tiny": {"spelling"},
    "small": {"spelling", "capital"},
    "medium": {"spelling", "capital", "sum"},
    "strong": set(KINDS),
}

#: USD per million tokens, in and out.
PRICES = {"tiny": (1.0, 2.0), "small": (2.0, 4.0), "medium": (4.0, 8.0), "strong": (10.0, 30.0), "referee": (1.0, 2.0)}

#: Tokens of every answer as the upstream counts them.
OUTPUT_TOKENS = 5


def prompt_of(kind: str, number: int) -> str:
    return f"A question of the kind {kind}, number {number}: which word is it?"


def word_of(kind: str, number: int) -> str:
    return f"{kind}-{number}"


@dataclass
class Simulated:
    """What the upstreams do and what they saw.

    Attributes:
        paid: how often each idempotency key was answered and charged; a repeated key gets its answer again for free.
        requests: all requests by model. usd: what was charged.
        before_answer: called with the number of paid calls before an answer is sent, and once more after it.
        busy: models that allow so many requests a second. flaky: models that fail with this probability.
        odd: fields that replace those of every answer.
        dead: models that always fail. denied: models that refuse every key.
    """

    paid: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    before_answer: Callable[[int], None] = lambda n: None
    after_answer: Callable[[int], None] = lambda n: None
    busy: dict[str, int] = field(default_factory=dict)
    flaky: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    answer: Callable[[str, str], str | None] = lambda model, prompt: None
    failure_headers: dict[str, str] = field(default_factory=dict)
    odd: dict[str, Any] = field(default_factory=dict)
    seen_bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _answers: dict[str, bytes] = field(default_factory=dict)
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def respond(self, body: dict[str, Any], key: str) -> tuple[int, bytes, dict[str, str]]:
        model = body["model"]
        with self._lock:
            self.requests[model] += 1
            self.seen_bodies.append(body)
            if model in self.denied:
                return 401, b'{"error": {"message": "no such key"}}', {}
            if (rate := self.busy.get(model)) is not None and self._is_too_fast(model, rate):
                return 429, b'{"error": {"message": "too fast"}}', {"Retry-After": "1"}
            if model in self.dead or self._random.random() < self.flaky.get(model, 0.0):
                return 500, b'{"error": {"message": "broken"}}', self.failure_headers
            if key and key in self._answers:
                return 200, self._answers[key], {}
            answer, cost = self._completion(model, body)
            self.paid[key or f"no key {len(self.paid)}"] += 1
            self.usd += cost
            self._answers[key] = answer
        return 200, answer, {}

    def _is_too_fast(self, model: str, rate: int) -> bool:
        recent = self._recent.setdefault(model, deque())
        now = time.monotonic()
        while recent and recent[0] < now - 1:
            recent.popleft()
        recent.append(now)
        return len(recent) > rate

    def _completion(self, model: str, body: dict[str, Any]) -> tuple[bytes, float]:
        prompt = body["messages"][-1]["content"]
        text = self.answer(model, prompt) or says(model, prompt)
        n_input = len(json.dumps(body["messages"])) // 4
        price_in, price_out = PRICES.get(model, (0.0, 0.0))
        usage = {"prompt_tokens": n_input, "completion_tokens": OUTPUT_TOKENS, "total_tokens": n_input + OUTPUT_TOKENS}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
        return json.dumps(whole | {"usage": usage} | self.odd).encode(), (
            n_input * price_in + OUTPUT_TOKENS * price_out
        ) / 1e6


def says(model: str, prompt: str) -> str:
    """Return what a model answers: the word that the prompt asks for, or another one if it does not know the kind."""
    if not prompt.startswith("A question of the kind "):
        return "ok"
    kind, _, rest = prompt.removeprefix("A question of the kind ").partition(", number ")
    number = rest.partition(":")[0]
    return word_of(kind, int(number)) if kind in ABILITIES[model] else "I do not know"


@contextlib.contextmanager
def simulated(**settings: Any) -> Iterator[Simulated]:
    """Serve the models in threads for as long as the context lasts."""
    state = Simulated(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state._lock:
                state.in_flight += 1
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
            try:
                time.sleep(0.002)
                status, data, headers = state.respond(body, self.headers.get("Idempotency-Key", ""))
                n_paid = sum(state.paid.values())
                state.before_answer(n_paid)
                self.send_response(status)
                for name, value in {
                    **headers,
                    "Content-Type": "application/json",
                    "Content-Length": str(len(data)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()
                state.after_answer(n_paid)
            except ConnectionError:
                self.close_connection = True
            finally:
                with state._lock:
                    state.in_flight -= 1

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_policy(path: Path, url: str, models: Sequence[str] = tuple(ABILITIES), **settings: Any) -> Path:
    """Write a policy whose candidates are these models of the simulated upstreams."""
    candidates = []
    for model in models:
        price_in, price_out = PRICES[model]
        prices = {"input_usd_per_million_tokens": price_in, "output_usd_per_million_tokens": price_out}
        candidates.append({"name": model, "model": f"openai/{model}", "api_base": url, "prices": prices, **settings})
    rule = {"kind": "fixed", "candidate": models[-1]}
    policy = {"schema": "elle.policy/1", "name": "mine", "candidates": candidates, "rule": rule}
    path.write_text(json.dumps(policy | {"safe_default": models[-1]}), "utf-8")
    return path


def write_log(path: Path, n: int, **columns: Any) -> Path:
    """Write a log of n prompts, whose kinds take turns, with the word that each asks for as its reference."""
    rows = []
    for number in range(n):
        kind = KINDS[number % len(KINDS)]
        rows.append({"prompt": prompt_of(kind, number), "reference": word_of(kind, number), "group": kind, **columns})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

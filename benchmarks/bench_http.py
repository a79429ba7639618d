"""Measure what the HTTP door adds to an upstream asked directly, on one keep-alive connection each; print JSON.

    python -m benchmarks.bench_http [--calls 400] [--quick]

The upstream is a process of its own that answers at once; so is the service. One call of each kind in every turn, so
that a noisy machine slows all alike; figures are medians over turns, in milliseconds, of the time above the direct call
of the same turn. `cache-entries` is 0 and every prompt is new, so each decided call is encoded.

- `door`: decided and answered; this is what the issue's limit is for;
- `door_pinned`: the candidate is named, nothing is encoded: the door and the dispatch;
- `decide`: the part of `door` that is encoding and deciding, as the service times it (`Route`, same prompts);
- `dispatch`: `router.answering.upstream` alone in this process: aiohttp with the OpenAI SDK's headers;
- `litellm`: LiteLLM alone in this process, as its users call it;
- `sdk`: the OpenAI SDK alone in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.bench_probe import commit, hardware
from router.answering.upstream import Upstream
from router.client import RouterClient
from router.policies.candidates.candidate import Candidate
from router.policies.loading import EXAMPLE_POLICY
from router.values import RouteQuery

#: Limit of issue 6 for `door`, and its aim.
MUST_MS, AIM_MS = 5.0, 2.0

NAMES = ("mixtral-8x7b", "gpt-4-turbo")

ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "forty-two"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="twenty calls: checks the script, not the speed")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.upstream:
        asyncio.run(serve_upstream())
        return
    times = asyncio.run(measure(20 if asked.quick else asked.calls))
    direct = times.pop("direct")
    overhead = {
        name: quantiles(
            [mine - base for mine, base in zip(column, direct, strict=True)] if name != "decide" else column
        )
        for name, column in times.items()
    }
    report = {
        "commit": commit(),
        "hardware": hardware(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "calls": len(direct),
        "direct_ms": quantiles(direct),
        "above_direct_ms": overhead,
        "must": {"door_p50_ms": {"limit": MUST_MS, "aim": AIM_MS, "met": overhead["door"]["p50"] < MUST_MS}},
    }
    print(json.dumps(report, indent=2))


async def measure(n_calls: int) -> dict[str, list[float]]:
    """Return the seconds of every kind of call in every turn; `decide` is what the service says of its decision."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        upstream_url = stack.enter_context(process("-m", "benchmarks.bench_http", "--upstream"))["http"]
        policy = write_policy(Path(folder), upstream_url)
        serve = ("-c", "from router.cli.main import main; main()", "serve", "--policy", str(policy), "--port", "0")
        at = stack.enter_context(process(*serve, "--http", "0", "--cache-entries", "0"))
        client = stack.enter_context(RouterClient(at["grpc"]))
        calls = await callers(stack, upstream_url, at["http"])
        times: dict[str, list[float]] = {name: [] for name in (*calls, "decide")}
        for turn in range(-20, n_calls):
            prompt = f"Question {turn}: which of the numbers {turn * 7 % 101} and {turn * 3 % 97} is prime, and why?"
            for name, call in calls.items():
                started = time.perf_counter()
                await call(prompt)
                times[name].append(time.perf_counter() - started)
            times["decide"].append(client.route(prompt).timings.total_s)
        # The first turns warm everything up.
        return {name: column[20:] for name, column in times.items()}


async def callers(
    stack: contextlib.AsyncExitStack, upstream_url: str, door_url: str
) -> dict[str, Callable[[str], Awaitable[Any]]]:
    """Yield each kind of call, on a connection of its own that is kept alive."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    import openai

    candidate = Candidate(name="x", model="openai/up", api_base=upstream_url)
    upstream = Upstream()
    await upstream.load()
    stack.push_async_callback(upstream.aclose)
    sdk = await stack.enter_async_context(openai.AsyncOpenAI(api_key="none", base_url=upstream_url, max_retries=0))

    def raw(url: str, model: str) -> Callable[[str], Awaitable[None]]:
        connection = http.client.HTTPConnection(url.split("/")[2])
        stack.callback(connection.close)

        async def call(prompt: str) -> None:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]})
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            reply = connection.getresponse()
            answer = reply.read()
            if reply.status != 200:
                raise RuntimeError(f"HTTP status {reply.status}: {answer!r:.500}")

        return call

    def chat(prompt: str) -> list[Any]:
        return [{"role": "user", "content": prompt}]

    return {
        "direct": raw(upstream_url, "up"),
        "door": raw(door_url, "elle/default"),
        "door_pinned": raw(door_url, NAMES[0]),
        "dispatch": lambda prompt: upstream.complete(candidate, RouteQuery.from_prompt(prompt)),
        "litellm": lambda prompt: litellm.acompletion(
            model="openai/up", messages=chat(prompt), api_base=upstream_url, api_key="none", max_retries=0
        ),
        "sdk": lambda prompt: sdk.chat.completions.create(model="up", messages=chat(prompt)),
    }


def write_policy(folder: Path, upstream_url: str) -> Path:
    """Write the example policy, under the name of the default, with our upstream for its two candidates."""
    policy = yaml.safe_load(EXAMPLE_POLICY.read_text("utf-8")) | {"name": "default"}
    for candidate in policy["candidates"]:
        candidate["api_base"] = upstream_url
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), "utf-8")
    return path


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[dict[str, str]]:
    """Run a serving process of ours, and yield the addresses that it prints, as `grpc` and `http`."""
    argv = [sys.executable, *arguments]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        try:
            found: dict[str, str] = {}
            for line in running.stderr or ():
                kind = "http" if "http://" in line else "grpc" if line.startswith("serving") else ""
                found |= {kind: line.split()[-1]} if kind else {}
                if "http" in found:
                    break
            if "http" not in found:
                raise RuntimeError(f"a server did not start: {arguments}")
            yield found
        finally:
            running.terminate()
            running.communicate()


async def serve_upstream() -> None:
    """Answer every request at once with the same bytes, until killed."""
    body = json.dumps(ANSWER).encode()
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(reply)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(f"upstream on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Return the median and the ninetieth percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {"p50": round(median(ordered) * 1e3, 3), "p90": round(ordered[int(len(ordered) * 0.9)] * 1e3, 3)}


if __name__ == "__main__":
    main()

"""Send load from a process of its own, and print one JSON document: `benchmarks.serve.client ADDRESS PROMPTS`.

Closed loop with `--concurrency`: so many calls are always open, over at most eight connections; a single one is made by
a blocking client, which is how a caller with one call at a time calls. Open loop with `--rate`: Poisson arrivals that
do not wait for answers, which is what an overload looks like.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc

MAX_CHANNELS = 8

STAGES = ("queue", "encode", "probe", "policy", "total")


@dataclass
class Seen:
    """Holds what happened: seconds by the name of the status, and the server's timings of answered calls."""

    latency: dict[str, list[float]] = field(default_factory=dict)
    stages: list[tuple[float, ...]] = field(default_factory=list)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return the percentiles of what was seen in milliseconds."""
        answered = np.array(self.latency.get("OK", [])) * 1e3
        stages = np.array(self.stages).reshape(-1, len(STAGES)) * 1e3
        found: dict[str, Any] = {
            "seconds": seconds,
            "statuses": {status: len(values) for status, values in self.latency.items()},
            "per_second": len(answered) / seconds,
            "refused_ms": percentiles(np.array(self.latency.get("RESOURCE_EXHAUSTED", [])) * 1e3),
            **percentiles(answered),
        }
        if len(stages):
            beside = answered[: len(stages)] - stages[:, STAGES.index("encode")]
            found["stages_p50_ms"] = dict(zip(STAGES, np.median(stages, axis=0).tolist(), strict=True))
            found["rpc_p50_ms"] = float(np.median(answered - stages[:, STAGES.index("total")]))
            found["all_but_encoding_p50_ms"] = float(np.median(beside))
        return found

    def answered(self, answer: Any, took_s: float) -> None:
        """Record one answer."""
        self.latency.setdefault("OK", []).append(took_s)
        timings = answer.decision.timings
        self.stages.append(tuple(getattr(timings, stage).ToNanoseconds() / 1e9 for stage in STAGES))


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Return p50, p95 and p99 of milliseconds, or nothing without values."""
    if not len(values):
        return {}
    return {f"p{q}_ms": float(np.percentile(values, q)) for q in (50, 95, 99)}


async def one_call(stub: Any, prompt: str, seen: Seen, timeout_s: float) -> None:
    """Send one prompt, and record how it went."""
    begun = time.perf_counter()
    try:
        answer = await stub.Route(pb.RouteRequest(prompt=prompt), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        seen.latency.setdefault(error.code().name, []).append(time.perf_counter() - begun)
        return
    seen.answered(answer, time.perf_counter() - begun)


def one_after_another(address: str, prompts: Sequence[str], seconds: float, calls: int) -> tuple[Seen, float]:
    """Make one call at a time, for a time or a number of calls; return what was seen, and the seconds that it took."""
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.RouterServiceStub(channel)
        stub.Route(pb.RouteRequest(prompt="warm up"), timeout=120.0)
        seen, first = Seen(), time.perf_counter()
        for place in range(calls or sys.maxsize):
            begun = time.perf_counter()
            answer = stub.Route(pb.RouteRequest(prompt=prompts[place % len(prompts)]), timeout=600.0)
            ended = time.perf_counter()
            seen.answered(answer, ended - begun)
            if not calls and ended >= first + seconds:
                break
        return seen, time.perf_counter() - first


async def closed_loop(
    stubs: Sequence[Any], prompts: Sequence[str], concurrency: int, seconds: float, calls: int
) -> Seen:
    """Keep `concurrency` calls open for a time or a number of calls; those open at the end are awaited and counted."""
    seen, ends = Seen(), time.perf_counter() + seconds
    order = iter(range(calls or sys.maxsize))

    async def caller(stub: Any) -> None:
        for place in order:
            await one_call(stub, prompts[place % len(prompts)], seen, 600.0)
            if not calls and time.perf_counter() >= ends:
                return

    await asyncio.gather(*(caller(stubs[number % len(stubs)]) for number in range(concurrency)))
    return seen


async def open_loop(stubs: Sequence[Any], prompts: Sequence[str], rate: float, seconds: float, seed: int) -> Seen:
    """Make calls at random times (Poisson), `rate` per second, for a number of seconds."""
    seen, rng, calls = Seen(), random.Random(seed), set()
    begun = due = time.perf_counter()
    number = 0
    while due < begun + seconds:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        call = asyncio.create_task(one_call(stubs[number % len(stubs)], prompts[number % len(prompts)], seen, 60.0))
        calls.add(call)
        call.add_done_callback(calls.discard)
        number += 1
    await asyncio.gather(*calls)
    return seen


async def run(asked: argparse.Namespace, prompts: list[str]) -> dict[str, Any]:
    """Make all calls of the load, and return what was seen."""
    random.Random(asked.seed).shuffle(prompts)
    if asked.concurrency == 1:
        seen, elapsed = one_after_another(asked.address, prompts, asked.seconds, asked.calls)
        return seen.summary(elapsed)
    n_channels = min(MAX_CHANNELS, asked.concurrency or MAX_CHANNELS)
    # Channels to one address share a connection unless told not to, and a connection has one worker.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(asked.address, options=apart) for _ in range(n_channels)]
    stubs = [pb_grpc.RouterServiceStub(channel) for channel in channels]
    warm = Seen()
    await asyncio.gather(*(one_call(stub, "warm up", warm, 120.0) for stub in stubs))
    begun = time.perf_counter()
    if asked.rate:
        seen = await open_loop(stubs, prompts, asked.rate, asked.seconds, asked.seed)
    else:
        seen = await closed_loop(stubs, prompts, asked.concurrency, asked.seconds, asked.calls)
    elapsed = time.perf_counter() - begun
    await asyncio.gather(*(channel.close() for channel in channels))
    return seen.summary(elapsed)


def main() -> None:
    """Print the figures of one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("prompts")
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--calls", type=int, default=0, help="so many instead of for so long")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(run(asked, json.loads(Path(asked.prompts).read_text("utf-8"))))))


if __name__ == "__main__":
    main()

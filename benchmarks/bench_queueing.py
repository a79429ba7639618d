"""Compare a queueing simulation of one node with the real one at three loads; print JSON.

    python -m benchmarks.bench_queueing [--rounds 12] [--seconds 3] [--loads .3 .5 .7]

The model is a queue in front of c cores. A call needs as much work as its prompt took with no other call open. While
one call is worked on it goes at full speed, because both cores work on it; while c are, each goes as much slower as
calls took longer with c of them open. Calls arrive at random (Poisson).

In each round the same prompts are sent three times: one by one, c at a time, and at random. The simulation gets the
arrivals and the prompts of that round. So the two differ by what the model leaves out, and neither by chance nor by
what else the machine did minutes before.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.load_test import SERVE, one_thread
from benchmarks.serve.client import percentiles
from benchmarks.serve.processes import serving
from benchmarks.serve.prompts import read_prompts
from probes.measures.bootstrap import bootstrap
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc

#: The fewest calls of a round, whatever the load.
LEAST_CALLS = 50


def simulated(arrivals_s: Sequence[float], work_s: Sequence[float], cores: int, slowdown: float) -> np.ndarray:
    """Return the seconds that calls take from their arrival to their answer.

    Args:
        arrivals_s: (n,) when the calls arrive, in order.
        work_s: (n,) how long each takes while nothing else is worked on.
        cores: how many calls are worked on at the same time; others wait in the order of their arrival.
        slowdown: how many times longer a call takes while as many are worked on as there are cores.
    """
    # With n calls in work the speed of each falls evenly from 1 for a lone one to that of a full node.
    per_call = (slowdown - 1) / max(1, cores - 1)
    left: dict[int, float] = {}
    waiting: deque[int] = deque()
    took, now, coming = np.empty(len(arrivals_s)), 0.0, 0
    while left or coming < len(arrivals_s):
        speed = 1 / (1 + per_call * (len(left) - 1)) if left else 1.0
        first = min(left, key=left.__getitem__, default=-1)
        ends = now + left[first] / speed if left else float("inf")
        is_arrival = coming < len(arrivals_s) and arrivals_s[coming] <= ends
        then = arrivals_s[coming] if is_arrival else ends
        for number in left:
            left[number] -= (then - now) * speed
        now = then
        if is_arrival:
            waiting.append(coming)
            coming += 1
        else:
            took[first] = now - arrivals_s[first]
            del left[first]
        while waiting and len(left) < cores:
            number = waiting.popleft()
            left[number] = work_s[number]
    return took


async def timed(stub: Any, prompt: str) -> tuple[float, float]:
    """Make one call. Return when it began and how long it took, in seconds."""
    begun = time.perf_counter()
    await stub.Route(pb.RouteRequest(prompt=prompt), timeout=60.0)
    return begun, time.perf_counter() - begun


async def in_turn(stubs: Sequence[Any], prompts: Sequence[str], at_a_time: int) -> np.ndarray:
    """Keep so many calls open until all prompts are answered. Return the seconds of each."""
    took, order = np.empty(len(prompts)), iter(range(len(prompts)))

    async def caller(stub: Any) -> None:
        for place in order:
            _, took[place] = await timed(stub, prompts[place])

    await asyncio.gather(*(caller(stubs[number % len(stubs)]) for number in range(at_a_time)))
    return took


async def at_random(stubs: Sequence[Any], prompts: Sequence[str], rate: float, seed: int) -> tuple[np.ndarray, ...]:
    """Send each prompt at a random time (Poisson). Return when each call began, and its seconds."""
    rng, due, calls = random.Random(seed), time.perf_counter(), []
    for prompt, stub in zip(prompts, itertools.cycle(stubs)):
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(timed(stub, prompt)))
    begun, took = zip(*await asyncio.gather(*calls), strict=True)
    return np.array(begun), np.array(took)


async def one_round(
    stubs: Sequence[Any], prompts: Sequence[str], load: float, cores: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the seconds of the same prompts one by one, c at a time, at random, and in the simulation."""
    alone = await in_turn(stubs, prompts, 1)
    full = await in_turn(stubs, prompts, cores)
    slowdown, rate = float(full.mean() / alone.mean()), load * cores / float(full.mean())
    begun, real = await at_random(stubs, prompts, rate, seed)
    # Calls of different connections may begin in another order than that of their tasks.
    order = np.argsort(begun)
    model = simulated(begun[order] - begun[order[0]], alone[order], cores, slowdown)
    return {"alone": alone, "full": full, "measured": real, "simulated": model}


async def measured(
    address: str, prompts: Sequence[str], load: float, asked: argparse.Namespace, cores: int
) -> dict[str, Any]:
    """Compare the model with the real service at a share of its capacity, over rounds."""
    apart = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=apart) for _ in range(4)]
    stubs = [pb_grpc.RouterServiceStub(channel) for channel in channels]
    usual = float((await in_turn(stubs, prompts[:200], cores)).mean())
    n_calls = max(LEAST_CALLS, int(asked.seconds * load * cores / usual))
    chances = random.Random(load)
    rounds = [
        await one_round(stubs, chances.sample(list(prompts), n_calls), load, cores, number)
        for number in range(asked.rounds)
    ]
    await asyncio.gather(*(channel.close() for channel in channels))
    pooled = {name: np.concatenate([one[name] for one in rounds]) * 1e3 for name in rounds[0]}
    ratios = np.array([one["simulated"].mean() / one["measured"].mean() for one in rounds])
    spread = bootstrap(lambda sample: float(np.median(sample)), ratios)
    figures = {name: {"mean_ms": float(np.mean(one)), **percentiles(one)} for name, one in pooled.items()}
    model, node = figures["simulated"], figures["measured"]
    return {
        "share_of_capacity": load,
        "calls_per_second": load * cores / (figures["full"]["mean_ms"] / 1e3),
        "calls": len(pooled["measured"]),
        **figures,
        "simulated_over_measured": {name: model[name] / node[name] for name in ("mean_ms", "p50_ms", "p95_ms")},
        "ratio_of_means_in_the_median_round": [spread.value, spread.low, spread.high],
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Run all loads against one real service, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.0, help="of random arrivals in each round")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    asked = parser.parse_args()
    cores, prompts, before = len(os.sched_getaffinity(0)), read_prompts(), os.getloadavg()[0]
    # The model refuses nobody.
    options = ("--cache-entries", "0", "--max-pending", "4096")
    with serving((*SERVE, *options), env=one_thread()) as server:
        found = [asyncio.run(measured(server.address, prompts, load, asked, cores)) for load in asked.loads]
    head = {"commit": commit(), "hardware": hardware(), "cores": cores, "load_average_before": before}
    print(json.dumps({**head, "loads": found}, indent=2))


if __name__ == "__main__":
    main()

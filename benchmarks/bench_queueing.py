"""Compare a queueing simulation of one node with the real one at three loads; print JSON.

    python -m benchmarks.bench_queueing [--seconds 20] [--loads .3 .5 .7]

The model is M/G/c: calls arrive at random (Poisson) and wait in one queue for one of c cores. Times of service were
measured of the real service just before each load: with one call open, when both cores work on it, and with c
calls open. A simulated call takes a time of the first kind if it begins while nothing else is worked on.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
from collections.abc import Sequence
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.load_test import SERVE, one_thread
from benchmarks.serve.client import closed_loop, open_loop, percentiles
from benchmarks.serve.processes import serving
from benchmarks.serve.prompts import read_prompts
from router.pb import router_service_pb2_grpc as pb_grpc

#: How many calls are simulated for each load.
SIMULATED = 200_000


def simulated(rate: float, alone_s: Sequence[float], busy_s: Sequence[float], cores: int, seed: int = 0) -> np.ndarray:
    """Return the seconds that calls take from their arrival to their answer.

    Args:
        rate: calls a second.
        alone_s: measured times of service of calls that nothing else is worked on beside.
        busy_s: measured times of service with as many calls open as there are cores.
        cores: how many calls are worked on at the same time.
        seed: makes the run repeatable.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, SIMULATED))
    alone, busy = (rng.choice(np.asarray(one), SIMULATED) for one in (alone_s, busy_s))
    ends = [0.0] * cores
    took = np.empty(SIMULATED)
    for number, arrival in enumerate(arrivals):
        begins = max(arrival, heapq.heappop(ends))
        is_alone = all(end <= begins for end in ends)
        end = begins + (alone[number] if is_alone else busy[number])
        heapq.heappush(ends, end)
        took[number] = end - arrival
    return took


async def measured(address: str, prompts: Sequence[str], load: float, seconds: float, cores: int) -> dict[str, Any]:
    """Measure times of service, then the real service at this share of its capacity, and simulate the same."""
    apart = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=apart) for _ in range(4)]
    stubs = [pb_grpc.RouterServiceStub(channel) for channel in channels]
    await closed_loop(stubs, prompts, cores, 2, 0)
    alone = (await closed_loop(stubs, prompts, 1, seconds / 2, 0)).latency["OK"]
    busy = (await closed_loop(stubs, prompts, cores, seconds / 2, 0)).latency["OK"]
    rate = load * cores / float(np.mean(busy))
    real = (await open_loop(stubs, prompts, rate, seconds, seed=0)).latency
    await asyncio.gather(*(channel.close() for channel in channels))
    of_model, of_node = simulated(rate, alone, busy, cores) * 1e3, np.asarray(real["OK"]) * 1e3
    model, node = ({"mean_ms": float(np.mean(one)), **percentiles(one)} for one in (of_model, of_node))
    return {
        "share_of_capacity": load,
        "calls_per_second": rate,
        "service_ms": {"alone": float(np.mean(alone)) * 1e3, "busy": float(np.mean(busy)) * 1e3},
        "statuses": {name: len(values) for name, values in real.items()},
        "measured": node,
        "simulated": model,
        "simulated_over_measured": {name: model[name] / node[name] for name in ("mean_ms", "p50_ms", "p95_ms")},
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Run all loads against one real service, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    asked = parser.parse_args()
    cores, prompts, before = len(os.sched_getaffinity(0)), read_prompts(), os.getloadavg()[0]
    with serving((*SERVE, "--cache-entries", "0"), env=one_thread()) as server:
        found = [asyncio.run(measured(server.address, prompts, load, asked.seconds, cores)) for load in asked.loads]
    head = {"commit": commit(), "hardware": hardware(), "cores": cores, "load_average_before": before}
    print(json.dumps({**head, "loads": found}, indent=2))


if __name__ == "__main__":
    main()

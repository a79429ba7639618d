"""Say where the time of a lone call goes in the thread that serves: a table for docs/performance.md.

    python -m benchmarks.profile_call [--calls 1000]

The service runs in this process and decides prompts one after the other, first without and then with Python's profiler.
The profiler says how the time of the thread is shared out. It makes everything slower, and calls of small functions
most, so its shares are applied to the computing time that was measured without it. Most forward passes run in this
thread, because the calls come alone; those in threads of their own are not in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.prompts import read_prompts
from router.drift.traffic_watch import DriftSettings
from router.serving.event_loop import run_in_event_loop
from router.serving.server import RunningService, serve_forever
from router.serving.settings import ServerSettings

#: What happens to a call, and the functions whose whole time that is, as the end of their file and their name.
STEPS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "read the message in time, count and decode it": (("wire/request_reader.py", "decoded"),),
    "make the query of the message and the headers": (("wire/servicer.py", "read"),),
    "find the ask, and who may answer": (("deciding/pipeline.py", "_prepare"),),
    "hand the prompt to the encoder's thread": (("deciding/encode_pool.py", "submit"),),
    "encode the prompt, because nobody else is there": (("deciding/encode_pool.py", "encode_here"),),
    "take the features from the encoder's thread": (
        ("deciding/encode_job.py", "_resolve"),
        ("deciding/encode_pool.py", "_count_done"),
    ),
    "judge: losses, risks, leverage, nearest kinds": (("policies/loading.py", "judge"),),
    "choose": (("policies/choice.py", "choose"),),
    "tell the language, and whether there is code": (("asking/ask.py", "language"), ("asking/ask.py", "has_code")),
    "compare costs, and make the event for observers": (("deciding/prepared_query.py", "decided_event"),),
    "tell the observers": (("observing/observer.py", "decided"),),
    "make the answer message": (("wire/conversion.py", "decision_to_wire"),),
}


async def profiled(n_calls: int, prompts: Path) -> tuple[float, cProfile.Profile]:
    """Return the computing time of this thread for each call in seconds, and a profile of as many further calls."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def note(running: RunningService) -> None:
        ready.set_result(running.address)

    settings = ServerSettings(port=0, cache_entries=0, drain_s=0.5, drain_delay_s=0, drift=DriftSettings())
    serving = asyncio.create_task(serve_forever(settings, note))
    address = await ready
    await _asked(address, prompts, 100)
    before = time.thread_time()
    await _asked(address, prompts, n_calls)
    per_call_s = (time.thread_time() - before) / n_calls
    profile = cProfile.Profile()
    profile.enable()
    await _asked(address, prompts, n_calls)
    profile.disable()
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    return per_call_s, profile


async def _asked(address: str, prompts: Path, n_calls: int) -> None:
    command = ["-m", "benchmarks.serve.client", address, str(prompts), "--concurrency", "1", "--calls", str(n_calls)]
    client = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.DEVNULL)
    if await client.wait():
        raise RuntimeError("the client failed; its message stands above.")


def shares(profile: cProfile.Profile, n_calls: int) -> tuple[dict[str, float], float]:
    """Return each step's share of the time of the thread, and the number of function calls for each call."""
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in found.values())
    steps = {
        step: sum(
            whole
            for (file, _, name), (_, _, _, whole, _) in found.items()
            if any(file.endswith(end) and name == wanted for end, wanted in functions)
        )
        / total
        for step, functions in STEPS.items()
    }
    return steps, sum(count for _, count, _, _, _ in found.values()) / n_calls


def main() -> None:
    """Profile a lone call, and print where its time goes as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1000)
    asked = parser.parse_args()
    box = []

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prompts = Path(folder) / "prompts.json"
            prompts.write_text(json.dumps(read_prompts()), "utf-8")
            box.append(await profiled(asked.calls, prompts))

    run_in_event_loop(run())
    per_call_s, profile = box[0]
    steps, n_functions = shares(profile, asked.calls)
    machine = hardware()
    print(f"`python -m benchmarks.profile_call`, commit {commit()[:12]}, {machine['cpu']}, {machine['cores']} cores,")
    print(f"load average {machine['load_average']:.1f}: {per_call_s * 1e3:.2f} ms of computing for each call in the")
    print(f"thread that serves, with {n_functions:.0f} calls of functions.\n")
    print("| what | share | ms |\n|---|---|---|")
    rest = "the rest: grpcio, the event loop, the guard, and joining these steps"
    for step, share in {**steps, rest: 1 - sum(steps.values())}.items():
        print(f"| {step} | {share:.0%} | {share * per_call_s * 1e3:.2f} |")


if __name__ == "__main__":
    main()

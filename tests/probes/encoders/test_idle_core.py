"""Tests of the help of an idle core in our own int8 forward pass: the same bits, and no core taken from others."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from probes.encoders.bundle import Bundle
from probes.encoders.native_runtime import TARGETS, NativeRuntime, targets_here
from probes.encoders.spec import MINILM_L6
from probes.encoders.weights import EncoderWeights
from router.deciding.cores import usable_cores
from tests.probes.encoders.small_bert import PARTS, POSITIONS, ROOT, VOCABULARY, compiled, needs_it, prompts


@pytest.fixture(scope="module")
def slow_help(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library with a helper that loses its core over every third item, longer than a pass takes."""
    lose = "static unsigned turn; if (turn++ % 3 == 0) usleep(2000);"
    # Compiled without the optimisation that takes most of the time: both runs that are compared use this library.
    return compiled(tmp_path_factory, "-DEMULATE_VNNI", f"-DLOSE_THE_CORE={lose}", "-O1")


def helped_within(seconds: float, run: NativeRuntime) -> bool:
    """Whether a core was idle at last, and did something."""
    ends = time.monotonic() + seconds
    while run.items_helped == 0 and time.monotonic() < ends:
        run([1, 2, 3])
    return run.items_helped > 0


def helpers() -> set[int]:
    """Threads of this process that only take what is left over."""
    threads = (int(entry.name) for entry in Path("/proc/self/task").iterdir())
    found = set()
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            found |= {thread} if os.sched_getscheduler(thread) == os.SCHED_IDLE else set()
    return found


@needs_it
@pytest.mark.skipif(sys.platform != "linux", reason="no threads of the class SCHED_IDLE")
@pytest.mark.skipif(usable_cores() < 2, reason="no second core that could be idle")
class TestIdleCore:
    def test_it_changes_no_bit(self, bundle: Bundle, emulation: Path) -> None:
        rng = np.random.default_rng(3)
        for target in TARGETS:
            alone, helped = (NativeRuntime(bundle.weights, MINILM_L6.parts, target, emulation) for _ in range(2))
            helped.use_idle_core()
            for n_tokens, times in ((2, 3), (3, 3), (17, 3), (60, 2), (256, 1)):
                ids = [101, *rng.integers(1000, 20_000, n_tokens - 2).tolist(), 102]
                expected = alone(ids)
                for _ in range(times):
                    np.testing.assert_array_equal(helped(ids), expected)
            assert helped_within(30, helped)

    def test_nor_does_a_helper_that_loses_its_core(self, small_model: EncoderWeights, slow_help: Path) -> None:
        for target in TARGETS:
            alone, helped = (NativeRuntime(small_model, PARTS, target, slow_help) for _ in range(2))
            helped.use_idle_core()
            for ids in prompts(150, seed=4):
                np.testing.assert_array_equal(helped(ids), alone(ids))
            assert helped_within(30, helped)

    def test_of_many_threads_one_at_a_time_is_helped(self, small_model: EncoderWeights) -> None:
        run = NativeRuntime(small_model, PARTS, targets_here()[0])
        many = prompts(400, seed=5)
        alone = [run(ids) for ids in many]
        run.use_idle_core()
        with ThreadPoolExecutor(8) as pool:
            for expected, found in zip(alone, pool.map(run, many), strict=True):
                np.testing.assert_array_equal(expected, found)

    def test_the_helper_is_of_the_idle_class_and_ends_with_its_model(self, small_model: EncoderWeights) -> None:
        before = helpers()
        run = NativeRuntime(small_model, PARTS, targets_here()[0])
        run.use_idle_core()
        run.use_idle_core()
        run([1, 2, 3])
        ends = time.monotonic() + 30
        # The helper sets its class itself.
        while not (ours := helpers() - before) and time.monotonic() < ends:
            time.sleep(0.01)
        assert len(ours) == 1
        del run
        gc.collect()
        while ours & helpers() and time.monotonic() < ends:
            time.sleep(0.01)
        assert not ours & helpers()

    @pytest.mark.parametrize("ending", ["", "os._exit(0)", "raise SystemExit(0)"])
    def test_a_program_may_end_in_the_middle_of_a_pass(self, ending: str) -> None:
        script = f"""
import os, sys, threading, time
from probes.encoders.native_runtime import NativeRuntime, targets_here
from tests.probes.encoders.small_bert import small_weights
run = NativeRuntime(small_weights(), {PARTS!r}, targets_here()[0])
run.use_idle_core()
def forever():
    while True:
        run([number % {VOCABULARY} for number in range({POSITIONS})])
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
{ending}
"""
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)

    def test_a_forked_process_computes_alone(self) -> None:
        script = f"""
import os, sys
from probes.encoders.native_runtime import NativeRuntime, targets_here
from tests.probes.encoders.small_bert import small_weights
run = NativeRuntime(small_weights(), {PARTS!r}, targets_here()[0])
run.use_idle_core()
expected = run([1, 2, 3]).tolist()
child = os.fork()
if child == 0:
    # Not os._exit: what runs at exit must not wait for a thread that this process has not got.
    sys.exit(0 if run([1, 2, 3]).tolist() == expected else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)

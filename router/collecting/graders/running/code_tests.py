"""Grade code by running it against the sample's tests (`CodeTests`)."""

from __future__ import annotations

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GraderError, GradingContext, readable
from router.collecting.graders.running.sandbox import Limits, check_sandbox, run_confined
from router.collecting.values import ModelAnswer, Sample, Verdict
from router.quoting import quoted

_FENCE = re.compile(r"```([a-zA-Z0-9]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_PYTHON = {"", "py", "python", "python3"}

#: Runs as many tests at a time as there are cores; each holds up to `memory_mb`.
_RUNNERS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="elle-tests")


@dataclass(frozen=True)
class CodeTests(Grader):
    """Runs the Python code of the answer, and then the sample's tests: 1 if they pass, and 0 otherwise.

    The code is the longest block of Python in the answer, or the whole answer if it has no block. The tests see its
    names. They fail by an exception, a failed `assert`, or by taking too long. Code of models runs on this machine, so
    the grader must be told to: `tests:run=true`. `sandbox.run_confined` says how the code is confined.

    Attributes:
        run: must be true.
        seconds: CPU time for answer and tests together, 1 to 3,600. After twice as long they are killed in any case.
        memory_mb: memory of each process in MiB, 64 to 1,000,000.
        isolation: `required`, or `optional` to run with limits only where the system forbids namespaces. Then the code
            has the network, and may change whatever the user (or as root: nobody) may change.

    Raises GraderError unless `run` is true, and if code cannot be confined on this machine.
    """

    name: ClassVar[str] = "tests"
    column: ClassVar[str] = "tests"

    run: bool = False
    seconds: int = 10
    memory_mb: int = 1024
    isolation: str = "required"

    def __post_init__(self) -> None:
        if not self.run:
            raise GraderError(
                "the grader tests runs code that models wrote on this machine; write tests:run=true if that is meant."
            )
        if not 1 <= self.seconds <= 3600 or not 64 <= self.memory_mb <= 1_000_000:
            raise GraderError("the grader tests takes seconds from 1 to 3,600 and memory_mb from 64 to 1,000,000.")
        if self.isolation not in {"required", "optional"}:
            raise GraderError(f"isolation of the grader tests is required or optional, got {quoted(self.isolation)}.")
        check_sandbox(self.isolation == "required")

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        if not sample.tests:
            return self.no_verdict("the sample has no tests")
        limits = Limits(self.seconds, 2.0 * self.seconds, self.memory_mb, self.isolation == "required")
        job = (code_in(readable(answer.text)), readable(sample.tests), limits)
        ending = await asyncio.get_running_loop().run_in_executor(_RUNNERS, run_confined, *job)
        passed = float(ending.result == "passed")
        return self.verdict(passed, result=ending.result, stage=ending.stage, isolated=ending.isolated)


def code_in(text: str) -> str:
    """Return the longest block of Python in an answer, or the whole answer if it has no such block."""
    blocks = [code for language, code in _FENCE.findall(text) if language.lower() in _PYTHON]
    return max(blocks, key=len, default=text)

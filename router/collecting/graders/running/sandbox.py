"""Run code in a confined process, and wait for its end (`run_confined`)."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from router.collecting.graders.base import GraderError

_CONFINED = Path(__file__).with_name("confined.py")
_MOST_RESULT_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z_]\w{0,39}")
#: Libraries for arrays would otherwise start a thread for each core.
_ENVIRONMENT = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: What a usable sandbox can run: the interpreter must be readable for the confined process.
_HARMLESS = "import collections, itertools, json, math, random, re, string, unittest"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what confined code may use.

    Attributes:
        cpu_s: seconds of CPU time, 1 or more.
        wall_s: seconds until everything is killed, above 0.
        memory_mb: MiB of memory for each process, 64 or more.
        isolated: whether the code must be cut off from network, files and other processes. Otherwise it is cut off
            where the system allows it.
    """

    cpu_s: int = 10
    wall_s: float = 20.0
    memory_mb: int = 1024
    isolated: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How confined code ended.

    Attributes:
        result: `passed`, the name of an exception, `timeout`, `killed`, or `ended` if it left without a result.
        stage: `answer` or `tests`, where an exception was raised; else empty.
        isolated: whether the code was cut off from network, files and other processes.
    """

    result: str
    stage: str
    isolated: bool


def run_confined(answer: str, tests: str, limits: Limits) -> Ending:
    """Run the code of an answer and then the tests, both as Python, in a confined process.

    The process has an empty environment, an empty working directory, and limits on CPU time, memory, processes and
    files. It is in namespaces of its own: without network, with read-only files, and ended as a whole. This function
    returns when it has ended.

    Code that root runs gets the rights of nobody. If the interpreter is root's alone, as below /root, it stays root
    without any capability, and the number of its processes is not limited; without namespaces it is refused.

    The code shares its process with the tests. So code that is written to deceive this very harness can pass; that of
    a model that answers a question does not.

    Raises GraderError if the code must be isolated and the system does not allow it.
    """
    token = secrets.token_hex(16)
    job = {
        "answer": answer,
        "tests": tests,
        "token": token,
        "cpu_s": limits.cpu_s,
        "memory_mb": limits.memory_mb,
        "isolation": "required" if limits.isolated else "optional",
    }
    with tempfile.TemporaryDirectory(prefix="elle-tests-") as folder, tempfile.TemporaryFile() as said:
        # The code may run as nobody. Only in a process that is not isolated is this its working directory.
        Path(folder).chmod(0o777)
        on_time = _wait(json.dumps(job).encode(), folder, said, limits.wall_s)
        said.seek(0)
        facts = _facts(said.read(_MOST_RESULT_BYTES), token)
    if "refused" in facts:
        raise GraderError(
            f"the system does not let code be isolated ({str(facts['refused'])[:200]}). Allow user namespaces, or, as "
            "another user than root, write tests:run=true,isolation=optional to run it with limits only."
        )
    result, stage = _result(facts, on_time)
    return Ending(result, stage, facts.get("isolated") is True)


def _wait(job: bytes, folder: str, said: IO[bytes], wall_s: float) -> bool:
    """Run a job with its output in a file, whose size is bounded, and return whether it ended in time."""
    with tempfile.TemporaryFile() as given:
        given.write(job)
        given.seek(0)
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-B", str(_CONFINED)],
            stdin=given,
            stdout=said,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    try:
        process.wait(wall_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return True


def _facts(said: bytes, token: str) -> dict[str, Any]:
    """Return what the confined process said; lines without the token are the code's own.

    Code that forks runs the tests in each process. They pass if they pass in all of them.
    """
    facts: dict[str, Any] = {}
    for line in said.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict) and found.pop("token", "") == token:
                facts |= found if facts.get("result", "passed") == "passed" else found | facts
    return facts


def _result(facts: dict[str, Any], on_time: bool) -> tuple[str, str]:
    result = facts.get("result")
    if isinstance(result, str):
        # The name of an exception is the code's own choice.
        return result if _NAME.fullmatch(result) else "error", str(facts.get("stage", ""))[:6]
    if not on_time or facts.get("ended") == f"signal {int(signal.SIGXCPU)}":
        return "timeout", ""
    return ("killed" if str(facts.get("ended", "")).startswith("signal") else "ended"), ""


@functools.cache
def check_sandbox(isolated: bool) -> None:
    """Raise GraderError if this system cannot run confined code, before any answer is paid for."""
    ending = run_confined("", _HARMLESS, Limits(isolated=isolated))
    if ending.result != "passed":
        raise GraderError(
            f"confined code cannot run here: a program that only imports modules of Python ended with {ending.result}."
        )

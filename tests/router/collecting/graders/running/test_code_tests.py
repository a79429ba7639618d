from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.naming import grader_named
from router.collecting.graders.running.code_tests import code_in
from router.collecting.graders.running.sandbox import Limits, check_sandbox, run_confined
from router.collecting.values import Verdict
from tests.conftest import ROOT
from tests.router.collecting.graders.grading import ODD_ANSWERS, verdict

RIGHT = "def double(x):\n    return 2 * x"
TESTS = "assert double(21) == 42\nassert double(-1) == -2"


@pytest.fixture(autouse=True)
def _sandbox() -> None:
    try:
        check_sandbox(True)
    except GraderError as error:
        pytest.skip(str(error))


async def run(code: str, tests: str = "pass", spec: str = "tests:run=true") -> Verdict:
    return await verdict(spec, code, tests=tests)


@pytest.mark.parametrize(
    ("answer", "score", "result"),
    [
        (RIGHT, 1, "passed"),
        (f"Here:\n```python\n{RIGHT}\n```\nIt doubles.", 1, "passed"),
        (f"```\n{RIGHT}\n```", 1, "passed"),
        ("def double(x):\n    return x", 0, "AssertionError"),
        ("def triple(x):\n    return 3 * x", 0, "NameError"),
        ("It is easy.", 0, "SyntaxError"),
        ("", 0, "NameError"),
        ("import sys; sys.exit(0)", 0, "SystemExit"),
        ("import os; os._exit(0)", 0, "ended"),
        ("raise type('x y', (BaseException,), {})", 0, "error"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 0, "killed"),
        (f"import os\nif os.fork():\n    double = lambda x: 2 * x\nelse:\n    os._exit(0)\n{RIGHT}", 1, "passed"),
        ("import os\ndouble = (lambda x: 2 * x) if os.fork() else (lambda x: 0)\nos.wait() if double(1) else 0", 0, ""),
    ],
)
async def test_the_answers_code_must_pass_the_tests(answer: str, score: float, result: str) -> None:
    found = await run(answer, TESTS)
    assert (found.score, found.detail["isolated"]) == (score, True)
    assert found.detail["result"] == result or not result


async def test_a_sample_without_tests_has_no_score() -> None:
    found = await verdict("tests:run=true", RIGHT)
    assert (found.score, found.reason) == (None, "the sample has no tests")
    assert grader_named("tests:run=true").needs == {"tests"}


@pytest.mark.parametrize(
    "spec",
    [
        "tests",
        "tests:run=false",
        "tests:run=true,seconds=0",
        "tests:run=true,isolation=no",
        "tests:run=true,memory_mb=1",
    ],
)
def test_code_runs_only_if_that_is_asked_for_with_sensible_limits(spec: str) -> None:
    with pytest.raises(GraderError, match="tests"):
        grader_named(spec)


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)", "while True: open('/dev/null')"])
def test_code_that_does_not_end_is_stopped(code: str) -> None:
    assert run_confined(code, "pass", Limits(cpu_s=1, wall_s=1.5)).result == "timeout"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("x = bytes(3 << 30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(100 << 20))", "OSError"),
        ("files = [open('/dev/null') for _ in range(100)]", "OSError"),
        ("import socket; socket.create_connection(('127.0.0.1', 1), 2)", "OSError"),
        ("import socket; socket.getaddrinfo('example.com', 80)", "gaierror"),
        (f"open({str(ROOT / 'written-by-a-test')!r}, 'w')", "OSError"),
        ("import os; os.kill(1, 9); raise EOFError", "EOFError"),
    ],
)
async def test_memory_files_network_and_other_processes_are_out_of_reach(code: str, result: str) -> None:
    assert (await run(code)).detail["result"] == result


async def test_the_environment_and_the_folders_of_sockets_are_empty() -> None:
    os.environ["SECRET_OF_A_TEST"] = "x"
    # Where Python lies in /tmp itself, as in a checkout there, /tmp stays readable.
    covered = ["/run", "."] + ([] if sys.prefix.startswith("/tmp/") else ["/tmp"])  # noqa: S108
    code = f"""
import os
from pathlib import Path
assert "SECRET_OF_A_TEST" not in os.environ and "HOME" not in os.environ, os.environ
assert [os.listdir(folder) for folder in {covered}] == [[]] * {len(covered)}
Path("scratch").write_text("x")
"""
    try:
        assert (await run(code)).score == 1
    finally:
        del os.environ["SECRET_OF_A_TEST"]


async def test_files_cannot_be_made_writable_again_nor_covers_taken_away() -> None:
    """Also not by the rights that a further user namespace gives."""
    code = f"""
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def attack():
    libc.mount(None, b"/", None, 32 | 4096, None)
    clear = ctypes.create_string_buffer(struct.pack("QQQQ", 0, 1, 0, 0))
    libc.syscall(442, -100, b"/", 0x8000, clear, ctypes.c_size_t(32))
    libc.umount2(b"/run", 2), libc.umount2(b"/tmp", 2)
    try:
        open({str(ROOT / "written-by-a-test")!r}, "w")
    except OSError:
        assert os.listdir("/run") == []
        return
    raise SystemError
attack()
libc.unshare(0x10000000 | 0x00020000)
attack()
"""
    assert (await run(code)).detail["result"] == "passed"
    assert not (ROOT / "written-by-a-test").exists()


def test_nothing_of_the_code_is_left_behind() -> None:
    code = "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(977)"
    assert run_confined(code, "pass", Limits()).result == "passed"
    # Tests beside this one confine code too, for a few seconds; what this code would leave sleeps for 977.
    left, give_up = _confined(), time.monotonic() + 60
    while left and time.monotonic() < give_up:
        time.sleep(0.2)
        left &= _confined()
    assert not left


def _confined() -> set[str]:
    """Return the ids of all processes that run confined code now."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"confined.py" in path.read_bytes():
                found.add(path.parent.name)
    return found


@pytest.mark.parametrize("index", range(len(ODD_ANSWERS)))
async def test_odd_answers_are_wrong(index: int) -> None:
    assert (await run(ODD_ANSWERS[index], TESTS)).score == 0


def test_the_longest_block_of_python_is_the_code() -> None:
    text = "```sh\npip install something-very-long\n```\n```python\nx = 1\n```\n```py\nx = 1\ny = 2\n```\n"
    assert code_in(text) == "x = 1\ny = 2"
    assert code_in("```python\nx = 1") == "x = 1"
    assert code_in("x = 1") == "x = 1"


def test_where_the_system_forbids_namespaces_code_runs_with_limits_only_if_that_is_asked_for() -> None:
    """In a namespace of its own, in which the test is an ordinary user and no further namespaces are allowed."""
    code = f"""
import ctypes, os, sys
from pathlib import Path
uid, gid = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"1000 {{uid}} 1")
Path("/proc/self/gid_map").write_text(f"1000 {{gid}} 1")
Path("/proc/sys/user/max_user_namespaces").write_text("0")
sys.path.insert(0, {str(ROOT)!r})
from router.collecting.graders.base import GraderError
from router.collecting.graders.naming import grader_named
from router.collecting.graders.running.sandbox import Limits, run_confined
try:
    grader_named("tests:run=true")
except GraderError as error:
    assert "isolation=optional" in str(error), error
else:
    raise SystemExit("it was not refused")
grader_named("tests:run=true,isolation=optional")
print(run_confined("x = 1", "assert x == 1", Limits(isolated=False)))
print(run_confined("while True: pass", "", Limits(cpu_s=1, wall_s=5, isolated=False)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "Ending(result='passed', stage='tests', isolated=False)",
        "Ending(result='timeout', stage='', isolated=False)",
    ], done.stderr

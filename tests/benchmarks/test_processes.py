"""The benchmarks find the address of a server, however it writes its lines, and what processes and threads compute."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.serve.processes import cpu_s, serving, thread_s, tree_s

_SAY = "import sys, time; sys.stderr.write({text!r}); sys.stderr.flush(); {then}"


def test_an_address_that_comes_together_with_other_lines_is_found() -> None:
    text = "loading\nserving on 127.0.0.1:1234\nmore on 127.0.0.1:9\n"
    with serving(("-c", _SAY.format(text=text, then="time.sleep(60)"))) as server:
        assert server.address == "127.0.0.1:1234"


def test_a_server_that_says_much_afterwards_is_not_stopped_by_a_full_pipe(tmp_path: Path) -> None:
    # A pipe holds 64 KiB, and this server says a megabyte before it goes on.
    said = tmp_path / "said"
    then = f"[sys.stderr.write('x' * 99 + chr(10)) for _ in range(10_000)]; open({str(said)!r}, 'w'); time.sleep(60)"
    with serving(("-c", _SAY.format(text="serving on 127.0.0.1:1234\n", then=then))):
        ends = time.monotonic() + 60
        while not said.exists() and time.monotonic() < ends:
            time.sleep(0.01)
        assert said.exists()


def test_a_server_that_ends_without_an_address_is_an_error_with_its_words() -> None:
    command = ("-c", _SAY.format(text="no port is free", then="0"))
    with pytest.raises(RuntimeError, match="no port is free"), serving(command):
        pass


def test_the_computing_time_of_a_thread_and_of_processes_is_told_apart() -> None:
    name = Path("/proc/thread-self/comm")
    ends = threading.Event()

    def work() -> None:
        name.write_text("busy thread of a test")
        while time.thread_time() < 0.05:
            pass
        ends.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while thread_s(os.getpid(), "busy thread of a test") < 0.05:
            time.sleep(0.01)
        assert 0.05 <= thread_s(os.getpid(), "busy thread of a test") < cpu_s(os.getpid())
    finally:
        ends.set()
        thread.join()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        while not (childs := cpu_s(child.pid)):
            time.sleep(0.01)
        assert tree_s(child.pid) >= childs
        own = cpu_s(os.getpid())
        assert tree_s(os.getpid()) >= own + childs
        child.communicate(b"\n")

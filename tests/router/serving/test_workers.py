"""Several processes on one port: all answer, one that is gone or stopped is replaced, nothing outlives the parent."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from router.client import RouterClient
from router.serving.workers import _Slot
from tests.fakes import write_policy
from tests.router.policies.score_policy import write_score_policy
from tests.router.serving.processes import ELLE, RULE, children_of, elle_serve, route_once, wait_until

#: What a client of HTTP/2 says first; the server answers with its settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

#: Put on the path of every worker: those that start while the file is there are not warm before it goes away.
SLOW_START = """
import os, pathlib, time
from router.deciding.pipeline import Router
warm_up = Router.warm_up
def slowly(self):
    while pathlib.Path(os.environ["ELLE_TEST_COLD"]).exists():
        time.sleep(0.02)
    warm_up(self)
Router.warm_up = slowly
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    # Without a probe, so that no encoder is loaded: this is about processes.
    return write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")


def options(policy: Path, *more: str) -> tuple[str, ...]:
    return "--policy", str(policy), "--workers", "2", "--drain-delay-s", "0", *more


def n_listeners(port: int) -> int:
    # gRPC's are of both families.
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return sum(int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A" for row in rows)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_all_answer_a_dead_one_is_replaced_and_sigterm_ends_them_all(policy: Path) -> None:
    with elle_serve(*options(policy)) as service:
        assert {route_once(service.address) for _ in range(8)} == {"small"}
        before = children_of(service.process.pid)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(children_of(service.process.pid) - before) == 1)
        wait_until(lambda: n_listeners(port_of(service.address)) == 2)
        assert {route_once(service.address) for _ in range(8)} == {"small"}
        workers = children_of(service.process.pid)
        service.ask_to_end()
        assert service.process.wait(60) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_share_sessions_and_one_that_replaces_another_knows_them(tmp_path: Path) -> None:
    prices = {"input_usd_per_million_tokens": 10, "output_usd_per_million_tokens": 30}
    prices["cached_input_usd_per_million_tokens"] = 1
    cheap = prices | {"input_usd_per_million_tokens": 9, "cached_input_usd_per_million_tokens": 9}
    models = zip(("small", "large"), (cheap, prices), strict=True)
    candidates = [{"name": name, "model": f"openai/{name}", "prices": price} for name, price in models]
    path = write_score_policy(tmp_path, candidates=candidates)

    def chosen(session: str, score: float) -> str:
        # The kernel spreads connections.
        with RouterClient(service.address) as client:
            return client.route("hello", session_id=session, scores={"confidence": score}).chosen

    with elle_serve(*options(path)) as service:
        assert chosen("other", 0.9) == "small"
        assert chosen("mine", 0.1) == "large"
        assert {chosen("mine", 0.9) for _ in range(12)} == {"large"}
        for pid in children_of(service.process.pid):
            before = children_of(service.process.pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda before=before: children_of(service.process.pid) - before)  # type: ignore[misc]
            wait_until(lambda: n_listeners(port_of(service.address)) == 2)
        assert {chosen("mine", 0.9) for _ in range(12)} == {"large"}


def test_one_that_replaces_another_does_not_listen_before_it_is_warm(policy: Path, tmp_path: Path) -> None:
    cold = tmp_path / "cold"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(SLOW_START)
    env = {"PYTHONPATH": str(tmp_path / "path"), "ELLE_TEST_COLD": str(cold)}
    with elle_serve(*options(policy), env=env) as service:
        port, before = port_of(service.address), children_of(service.process.pid)
        cold.touch()
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(children_of(service.process.pid) - before) == 1)
        # No retries and no waiting: each new connection is answered, by the one that is ready.
        for _ in range(60):
            assert route_once(service.address, wait=False) == "small"
            assert n_listeners(port) == 1
        cold.unlink()
        wait_until(lambda: n_listeners(port) == 2)


def metrics_of(port: int) -> dict[str, float]:
    """Return all metrics by name and labels, as Prometheus reads them."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines if one[:1] != "#")}


def test_one_scrape_sees_all_a_stopped_one_is_killed_replaced_and_counted_and_no_counter_goes_back(
    policy: Path,
) -> None:
    metrics = free_port()
    # Five seconds, so that a busy machine makes no other one silent. One that is stopped is killed after `--drain-s`.
    more = ("--worker-timeout-s", "5", "--drain-s", "2", "--metrics-port", str(metrics), "--admin-port", "0")
    with elle_serve(*options(policy, *more)) as service:
        port, before = port_of(service.address), children_of(service.process.pid)
        for _ in range(8):
            route_once(service.address)

        def n_decided() -> float:
            return sum(value for name, value in metrics_of(metrics).items() if name.startswith("elle_decisions_total"))

        wait_until(lambda: n_decided() == 8)
        assert metrics_of(metrics)["elle_workers"] == 2
        wait_until(lambda: "operator's page" in service.text)
        page = re.search(r"page on (\S+)/", service.text)[1]  # type: ignore[index]
        assert "small answers" in re.sub("<.*?>", "", httpx.post(f"{page}/try", data={"prompt": "x"}).text)
        assert httpx.get(f"{page}/status.json").json()["period_total"]["decisions"] == 8
        stopped = min(before)
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: not Path(f"/proc/{stopped}").exists())
        wait_until(lambda: n_listeners(port) == 2)
        assert len(children_of(service.process.pid)) == 2
        assert metrics_of(metrics)['elle_worker_restarts_total{ended="silent"}'] == 1
        assert n_decided() == 8
        for _ in range(4):
            route_once(service.address)
        wait_until(lambda: n_decided() == 12)
        assert "was silent" in service.text
        # Nor does one that is stopped hold up the end of all.
        os.kill(max(children_of(service.process.pid)), signal.SIGSTOP)
        service.ask_to_end()
        assert service.process.wait(60) == 0


def test_one_that_leaves_loses_no_connection_from_its_backlog(policy: Path) -> None:
    seen: Counter[str] = Counter()
    over = threading.Event()

    def connect(port: int) -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                    connection.sendall(PREFACE)
                    seen["answered" if connection.recv(9) else "closed"] += 1
            except OSError as error:
                seen[type(error).__name__] += 1

    with elle_serve(*options(policy)) as service:
        clients = [threading.Thread(target=connect, args=(port_of(service.address),)) for _ in range(2)]
        for client in clients:
            client.start()
        for _ in range(2):
            workers = children_of(service.process.pid)
            os.kill(min(workers), signal.SIGTERM)
            wait_until(lambda workers=workers: len(children_of(service.process.pid) - workers) == 1)  # type: ignore[misc]
            wait_until(lambda: n_listeners(port_of(service.address)) == 2)
        over.set()
        for client in clients:
            client.join()
    assert set(seen) == {"answered"}, seen


def test_both_ports_are_shared_a_hangup_reaches_all_and_workers_leave_when_their_parent_is_killed(policy: Path) -> None:
    # One service for three properties, because each start of a service takes seconds. The killing comes last.
    with elle_serve(*options(policy, "--http", "0", "--drain-delay-s", "300", "--drain-s", "600")) as service:
        assert n_listeners(port_of(service.url)) == 2
        assert {httpx.get(f"{service.url}/v1/models").status_code for _ in range(8)} == {200}
        workers = children_of(service.process.pid)
        policy.write_text(policy.read_text("utf-8").replace("candidate: small", "candidate: large"), "utf-8")
        service.ask_to_end(signal.SIGHUP)
        wait_until(lambda: service.text.count("other policies decide from now on") == 2)
        assert {route_once(service.address, wait=False) for _ in range(8)} == {"large"}
        assert children_of(service.process.pid) == workers
        service.process.kill()
        service.process.wait()
        # Nobody waits for them now, and the next service wants their ports, so they leave out the delay.
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


#: Ends the parent when it starts its first worker, and prints what it has imported until then.
AT_THE_FIRST_WORKER = """
import multiprocessing.context, os, sys
def start(process):
    print(*sys.modules, flush=True)
    os._exit(0)
multiprocessing.context.SpawnProcess.start = start
"""


def test_the_parent_starts_its_workers_before_it_imports_what_only_they_need(policy: Path) -> None:
    argv = [sys.executable, "-c", AT_THE_FIRST_WORKER + ELLE, "serve", *options(policy), "--port", "0", "--http", "0"]
    argv += ["--ledger", str(policy.with_name("ledger.db"))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "multiprocessing" in imported
    assert imported.isdisjoint({"alembic", "grpc", "numpy", "sqlalchemy", "starlette", "uvicorn"})


def test_an_occupied_port_is_refused_at_once(policy: Path, address: str) -> None:
    argv = [sys.executable, "-c", ELLE, "serve", "--workers", "2"]
    argv += ["--policy", str(policy), "--port", address.rpartition(":")[2]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "cannot listen" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    with RouterClient(address) as client:
        assert client.route("still there?").chosen


def test_what_keeps_a_worker_from_starting_is_said_by_the_parent(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe="nowhere")
    argv = [sys.executable, "-c", ELLE, "serve", "--workers", "2", "--port", "0"]
    done = subprocess.run([*argv, "--policy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("failures", "served_s", "wait_s"),
    # One that served is replaced at once, one that ends as soon as it serves is not started without a pause, and one
    # that cannot start is tried ever more rarely.
    [(0, 3600.0, 0.0), (0, 0.25, 0.75), (1, -math.inf, 2.0), (3, -math.inf, 8.0), (40, -math.inf, 30.0)],
)
def test_only_a_worker_that_ends_soon_is_waited_for(failures: int, served_s: float, wait_s: float) -> None:
    assert _Slot(0, failures=failures).wait_s(served_s) == wait_s

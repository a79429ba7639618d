"""Connect to a Ray cluster, or start one of this machine, from which nothing leaves the machine (`ray_cluster`)."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from probes.errors import DataError

#: The address by which the processes of a local cluster find each other. Ray replaces 127.0.0.1 by an outer one.
_LOOPBACK = "127.0.0.2"

#: Bytes of memory for what the processes of a local cluster exchange.
_STORE_BYTES = 512 << 20

#: How often a local cluster is started anew. On a busy machine the 30 seconds that Ray gives its processes are too few.
_STARTS = 3

#: Even with its dashboard and its usage statistics off, Ray asks the clouds' well-known addresses where it runs. Its
#: processes are started with a proxy that nobody listens on, so these requests go nowhere.
_PROXIES = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.0/8,localhost"}


def import_ray() -> Any:
    """Return the module `ray`. Raises DataError with what to do if it is not installed."""
    # Ray's native part writes warnings about Ray Data's own actors to stderr, where nothing else could stop them.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DataError("the engine ray is not installed; install it with `pip install 'elle-router[ray]'`.") from error
    return ray


@contextmanager
def ray_cluster(n_cpus: int | None) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster that $RAY_ADDRESS names, or to one started on this machine.

    n_cpus: processors of a cluster on this machine; None stands for all. Such a cluster keeps its files in a folder of
    its own, and is gone with the context. Its processes listen on every address of the machine, as Ray's always do, and
    take only calls with a token that this process made. A connection that the program has already is used and left as
    it is.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    folder = tempfile.mkdtemp(prefix="elle-ray-")
    try:
        _connect(ray, n_cpus, folder)
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, n_cpus: int | None, folder: str) -> None:
    """Connect to a cluster, or start one with its files in `folder`. Raises DataError if neither is possible."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # Ray raises plain exceptions, for a cluster that is not there as for one that does not start in time.
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(address=address, **quiet)
        except Exception as error:
            raise DataError(f"the Ray cluster at {address} cannot be reached: {error}") from error
        return
    # Ray asks for a token by itself. Without this one it would write one into the home directory.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    own: dict[str, Any] = {
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": _LOOPBACK,
        "_temp_dir": folder,
        # What is exchanged may hold prompts, which must not be written to a disk.
        "_system_config": {"automatic_object_spilling_enabled": False},
    }
    for left in reversed(range(_STARTS)):
        try:
            with _environment(_PROXIES):
                ray.init(num_cpus=n_cpus, **own, **quiet)
        except Exception as error:
            ray.shutdown()
            if not left:
                raise DataError(f"Ray does not start on this machine: {error}") from error
        else:
            return


def variables_before() -> dict[str, str | None]:
    """Return the proxy variables of this process, which a local cluster is started without."""
    return {name: os.environ.get(name) for name in _PROXIES}


def restore_variables(before: dict[str, str | None]) -> None:
    """Set the proxy variables in a process of the cluster to what they are in the driver (`variables_before`)."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = variables_before()
    os.environ.update(variables)
    try:
        yield
    finally:
        restore_variables(before)

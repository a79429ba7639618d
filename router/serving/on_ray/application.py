"""Deploy the service as an application of Ray Serve, and keep it until a signal comes (`serve_on_ray`)."""

from __future__ import annotations

import hashlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from probes.bounded.secrets import mask_secrets
from probes.errors import ProbesError
from router.errors import ConfigError, RouterError
from router.policies.loading import DEFAULT_POLICY, load_policies
from router.serving.on_ray.ingress import IMPORT_PATH
from router.serving.on_ray.replica import Replica
from router.serving.reloading.hangup import on_hangup
from router.serving.settings import ServerSettings

log = logging.getLogger(__name__)

#: The name of the application and of its deployment.
NAME = "elle"

#: Ray's ingress knows an application by its route, also over gRPC. Nothing answers there over HTTP.
_ROUTE = f"/{NAME}"

#: Requests that a replica works on at a time; more wait in the ingress.
_MOST_ONGOING = 64

#: Settings of a service that replicas do not have, by the options of `elle serve` that set them.
_NOT_ON_RAY = {
    "http": "--http",
    "doors": "--ext-proc",
    "tls": "--tls-cert",
    "metrics_port": "--metrics-port",
    "admin_port": "--admin-port",
    "traces": "--otlp-endpoint",
    "canary": "--canary",
    "shadows": "--shadow",
    "watch": "--watch",
    "state": "--state",
    "drift_state": "--drift-state",
}


@dataclass(frozen=True)
class Scale:
    """Says how many replicas there are, and when there are more or fewer.

    Attributes:
        least, most: the numbers of replicas. ongoing: the requests at a time for which there should be one replica.
        up_s, down_s: for how many seconds there must be too many or too few requests before replicas come or go.
    """

    least: int = 1
    most: int = 4
    ongoing: float = 2.0
    up_s: float = 5.0
    down_s: float = 60.0


def require_fit(settings: ServerSettings) -> None:
    """Raise ConfigError for settings that a service on Ray cannot have."""
    defaults = {one.name: one.default for one in fields(ServerSettings)}
    wrong = [option for name, option in _NOT_ON_RAY.items() if getattr(settings, name) != defaults[name]]
    if settings.log.decisions:
        wrong.append("--log-decisions")
    if wrong:
        raise ConfigError(f"--engine ray does not have {', '.join(wrong)}; leave it out, or serve without Ray.")
    if not settings.insecure:
        raise ConfigError(
            "Ray's ingress listens on every address of its machines, and without TLS. Keep its port away from others "
            "by a firewall, put something in front of it that encrypts, and say so with --insecure."
        )


def deployed(settings: ServerSettings, scale: Scale, variables: dict[str, str | None]) -> Any:
    """Return the application for Ray Serve, with the policies of the settings as its `user_config`."""
    from ray import serve

    deployment = serve.deployment(
        Replica,
        name=NAME,
        user_config=user_config(settings.policies),
        max_ongoing_requests=_MOST_ONGOING,
        graceful_shutdown_timeout_s=settings.drain_s,
        ray_actor_options={"num_cpus": 1},
        autoscaling_config={
            "min_replicas": scale.least,
            "max_replicas": scale.most,
            "target_ongoing_requests": scale.ongoing,
            "upscale_delay_s": scale.up_s,
            "downscale_delay_s": scale.down_s,
        },
    )
    # By an equal version Ray sees that only `user_config` differs, and lets the replicas stay. Its public functions
    # make a new one each time that a program deploys.
    deployment = deployment.options(version="1", _internal=True)
    return deployment.bind(replace(settings, policies=(), threads=settings.threads or 1), variables)


def user_config(policies: Sequence[Path]) -> dict[str, Any]:
    """Return what tells replicas which policies to load: their files, and digests by which a change of one is seen."""
    files = [path.absolute() for path in policies]
    return {
        "policies": [str(path) for path in files],
        "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
    }


def ingress_options(settings: ServerSettings, port: int) -> dict[str, Any]:
    """Return the options of Ray's gRPC ingress.

    It has reflection of its own, which asks for no token. So a service that asks for tokens goes without.
    """
    reflects = settings.reflection and not settings.identity.is_on
    return {"port": port, "grpc_servicer_functions": [IMPORT_PATH], "enable_reflection": reflects}


def serve_on_ray(settings: ServerSettings, scale: Scale, on_ready: Callable[[str], None]) -> None:
    """Serve on Ray until SIGTERM or SIGINT; SIGHUP lets every replica load the policies again.

    on_ready: is called with the address of gRPC once a replica decides.

    Raises ConfigError for settings that do not go together or policies that cannot be used, and if Ray cannot start the
    replicas; DataError if Ray is not installed.
    """
    require_fit(settings)
    from probes.shards.ray_cluster import ray_cluster, variables_before

    variables = variables_before()
    ended, hangup = threading.Event(), threading.Event()
    with ray_cluster(scale.most):
        # Only now, because Ray sets handlers of its own when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        on_hangup(hangup.set)
        from ray import serve
        from ray.serve.config import gRPCOptions

        port = settings.port or _free_port()
        serve.start(
            http_options={"host": "127.0.0.1", "port": _free_port()},
            grpc_options=gRPCOptions(**ingress_options(settings, port)),
        )
        try:
            _run(settings, scale, variables)
            on_ready(f"127.0.0.1:{port}")
            while not ended.wait(0.2):
                if hangup.is_set():
                    hangup.clear()
                    _redeploy(settings, scale, variables)
        finally:
            serve.shutdown()


def _redeploy(settings: ServerSettings, scale: Scale, variables: dict[str, str | None]) -> None:
    """Deploy again: as only `user_config` can differ, the replicas stay and load its policies."""
    try:
        # Ray Serve would end replicas that cannot load what they are given.
        load_policies(settings.policies or (DEFAULT_POLICY,))
    except (RouterError, ProbesError) as error:
        log.error("SIGHUP: the policies were not replaced: %s", mask_secrets(str(error)))  # noqa: TRY400 - it says all
        return
    try:
        _run(settings, scale, variables)
    except ConfigError as error:
        # The replicas that decide go on. One that starts meanwhile and finds a file spoiled again is what Ray gives up.
        log.error("SIGHUP: not every replica has the policies; mend them and send SIGHUP again: %s", error)  # noqa: TRY400
        return
    log.warning("SIGHUP: the replicas have loaded the policies again")


def _run(settings: ServerSettings, scale: Scale, variables: dict[str, str | None]) -> None:
    """Deploy the application, and wait until its replicas decide. Raise ConfigError if they cannot."""
    from ray import serve

    try:
        serve.run(deployed(settings, scale, variables), name=NAME, route_prefix=_ROUTE)
    except OSError as error:
        raise ConfigError(f"a policy cannot be read: {error}") from error
    except RuntimeError as error:
        raise ConfigError(
            f"Ray gave up starting replicas, whose own log says why (`ray logs`): {mask_secrets(str(error))}"
        ) from error


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

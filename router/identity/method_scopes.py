"""Say which scopes open which gRPC method (`needed_for`). A method that nobody has named here needs `admin`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from router.identity.counts import DoorName
from router.identity.principal import Scope

#: Any one of these scopes is enough. None: the method needs no token at all.
Needed: TypeAlias = frozenset[Scope] | None

ANY_SCOPE = frozenset(Scope)
DECIDING = frozenset({Scope.ROUTE})
ANSWERING = frozenset({Scope.COMPLETE})
READING = frozenset({Scope.ROUTE, Scope.COMPLETE, Scope.ADMIN})
GRADING = frozenset({Scope.FEEDBACK})
RUNNING = frozenset({Scope.ADMIN})

#: The external processor of Envoy.
EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"

_ROUTER, _ADMIN = "elle.router.v1.RouterService", "elle.router.v1.AdminService"

#: By service and method; a method of None stands for all methods of the service.
_METHODS: Mapping[tuple[str, str | None], Needed] = {
    # Load balancers and orchestrators hold no token.
    ("grpc.health.v1.Health", None): None,
    ("grpc.reflection.v1alpha.ServerReflection", None): ANY_SCOPE,
    ("grpc.reflection.v1.ServerReflection", None): ANY_SCOPE,
    (EXT_PROC, None): DECIDING,
    (_ROUTER, "Route"): DECIDING,
    (_ROUTER, "BatchRoute"): DECIDING,
    (_ROUTER, "Complete"): ANSWERING,
    (_ROUTER, "StreamComplete"): ANSWERING,
    (_ROUTER, "Feedback"): GRADING,
    (_ROUTER, "GetPolicy"): READING,
    (_ADMIN, None): RUNNING,
}


def needed_for(service: str, method: str) -> Needed:
    """Return the scopes of which a caller of this method needs one, or None if everybody may call it."""
    return _METHODS.get((service, method), _METHODS.get((service, None), RUNNING))


def door_of(service: str) -> DoorName:
    """Return the door that the methods of a gRPC service belong to."""
    return DoorName.EXT_PROC if service == EXT_PROC else DoorName.GRPC

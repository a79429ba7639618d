"""Change what a running service decides by, from Python (`AdminClient`)."""

from __future__ import annotations

from typing import Any, Self

import grpc
from google.protobuf.json_format import MessageToDict

from router.client.channels import DEFAULT_ADDRESS, target_of
from router.pb import admin_service_pb2 as pb
from router.pb import admin_service_pb2_grpc as pb_grpc
from router.wire.service_errors import errors_of_service

#: Seconds that a call may take. Loading and checking a version takes one or two.
_TIMEOUT_S = 60.0


class AdminClient:
    """Changes a running service, by `elle.router.v1.AdminService`. Its methods return plain values.

    Args:
        address: host and port of the service.
        credentials: credentials for TLS; None connects without encryption.
        api_key: a token with the scope `admin`.

    Raises ConfigError for an address that is a URL. Every method raises ServiceError if the service answers with an
    error.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, credentials: grpc.ChannelCredentials | None = None, api_key: str = ""
    ) -> None:
        self._target = target_of(address)
        self._channel = (
            grpc.insecure_channel(self._target)
            if credentials is None
            else grpc.secure_channel(self._target, credentials)
        )
        self._stub = pb_grpc.AdminServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._channel.close()

    def versions(self) -> dict[str, Any]:
        """Return what the service decides by (`served`), and the versions in its store (`versions`)."""
        return self._call("ListVersions", pb.ListVersionsRequest())

    def reload(self) -> dict[str, Any]:
        """Let all processes of the service load their policies again. Return whether others decide (`replaced`)."""
        return self._call("Reload", pb.ReloadRequest())

    def activate(self, version: str, reason: str, expected: str | None = None) -> dict[str, Any]:
        """Make a version of the service's store the active one, serve it, and return the change.

        expected: the id of the version that must be active for this; empty if none may be. None takes any.
        """
        request = pb.ActivatePolicyRequest(version=version, reason=reason, expected=expected)
        return self._change("ActivatePolicy", request)

    def rollback(self, policy: str, reason: str, expected: str | None = None) -> dict[str, Any]:
        """Go back to the version that was active before the one that is, serve it, and return the change."""
        return self._change("RollbackPolicy", pb.RollbackPolicyRequest(policy=policy, reason=reason, expected=expected))

    def _change(self, method: str, request: Any) -> dict[str, Any]:
        change: dict[str, Any] = self._call(method, request)["change"]
        return change

    def _call(self, method: str, request: Any) -> dict[str, Any]:
        with errors_of_service(self._target):
            answer = getattr(self._stub, method)(request, metadata=self._metadata, timeout=_TIMEOUT_S)
        return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

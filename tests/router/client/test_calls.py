"""The Python clients: alike in sync and async, hints kept and obeyed, newer services understood, odd values refused."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from router.attempts import AttemptOutcome
from router.client import AsyncRouterClient, RouterClient
from router.decision import Reason
from router.errors import ConfigError, InvalidRequestError, NotReadyError, OverloadedError, ServiceError
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from router.values import Overrides, RouteQuery
from router.wire import conversion, deliveries
from router.wire.guarded_server import add_to_server
from router.wire.service_errors import service_error
from tests.fuzz.protobuf import varint
from tests.gateways.loopback import in_thread

PUBLIC = sorted(name for name in vars(RouterClient) if not name.startswith("_"))


@contextmanager
def serving(route: Callable[[Any], pb.RouteResponse]) -> Iterator[str]:
    """Run a service whose Route does this with the call's metadata, and yield its address."""

    class Service(pb_grpc.RouterServiceServicer):
        async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteResponse:  # noqa: N802
            return route(dict(context.invocation_metadata()))

    @asynccontextmanager
    async def running() -> Any:
        server = grpc.aio.server()
        add_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)

    with in_thread(running()) as address:
        yield address


class TestParity:
    def test_both_clients_have_the_same_methods(self) -> None:
        assert sorted(name for name in vars(AsyncRouterClient) if not name.startswith("_")) == PUBLIC
        assert {"route", "route_batch", "complete", "stream", "get_policy", "close"} <= set(PUBLIC)

    @pytest.mark.parametrize("name", ["__init__", *PUBLIC])
    def test_they_take_the_same_parameters(self, name: str) -> None:
        of_sync, of_async = (inspect.signature(getattr(kind, name)) for kind in (RouterClient, AsyncRouterClient))
        assert of_sync.parameters == of_async.parameters

    async def test_every_method_sends_the_credential(self) -> None:
        seen: list[str] = []

        def route(metadata: dict[str, str]) -> pb.RouteResponse:
            seen.append(metadata.get("x-api-key", ""))
            return pb.RouteResponse()

        with serving(route) as address:
            with RouterClient(address) as client:
                client.route("x")
                client.route("x", api_key="one")
            with RouterClient(address, api_key="own") as client:
                client.route("x")
                client.route("x", api_key="one")
            async with AsyncRouterClient(address, api_key="own") as other:
                await other.route("x", session_id="s", parameters={"n": 1})
        assert seen == ["", "one", "own", "one", "own"]

    def test_a_credential_that_no_header_can_hold_is_refused_before_the_call(self) -> None:
        with RouterClient("127.0.0.1:1", api_key="a\nb") as client, pytest.raises(InvalidRequestError, match="api_key"):
            client.route("x")

    @pytest.mark.parametrize("what", [5, None, {"role": "user"}], ids=str)
    def test_what_is_no_request_is_refused_before_the_call(self, what: Any) -> None:
        with (
            RouterClient("127.0.0.1:1") as client,
            pytest.raises(InvalidRequestError, match="must be a prompt, a list"),
        ):
            client.route(what)


class TestNobodyThere:
    async def test_the_error_names_the_address_and_says_what_to_do(self) -> None:
        with RouterClient("127.0.0.1:1") as client, pytest.raises(ServiceError) as caught:
            client.route("x")
        async with AsyncRouterClient(["127.0.0.1:1"]) as other:
            with pytest.raises(ServiceError) as caught_too:
                await other.complete("x")
        for error, address in ((caught.value, "127.0.0.1:1"), (caught_too.value, "ipv4:127.0.0.1:1")):
            assert str(error).startswith(f"UNAVAILABLE: no service answers at {address} (")
            assert str(error).endswith(" Start one by `elle serve`, or give the address of one that runs.")
            assert error.code == "UNAVAILABLE"

    def test_a_service_that_says_nothing_in_time_is_named(self) -> None:
        def route(metadata: dict[str, str]) -> pb.RouteResponse:
            time.sleep(0.5)
            return pb.RouteResponse()

        with (
            serving(route) as address,
            RouterClient(address, timeout_s=0.1) as client,
            pytest.raises(ServiceError, match=f"no answer came from {address} in the time"),
        ):
            client.route("x")

    def test_what_the_service_says_itself_stays(self) -> None:
        def route(metadata: dict[str, str]) -> pb.RouteResponse:
            raise OverloadedError("full", retry_after_s=1.25)

        with (
            serving(route) as address,
            RouterClient(address) as client,
            pytest.raises(ServiceError, match=r"^RESOURCE_EXHAUSTED: full$"),
        ):
            client.route("x")

    @pytest.mark.parametrize("address", ["", " ", "https://localhost:50051"])
    def test_an_address_that_can_be_none_is_refused(self, address: str) -> None:
        with pytest.raises(ConfigError, match="an address must be host:port"):
            RouterClient(address)


class TestHints:
    async def test_when_to_retry_is_kept_on_the_error(self) -> None:
        def route(metadata: dict[str, str]) -> pb.RouteResponse:
            raise OverloadedError("full", retry_after_s=1.25)

        with serving(route) as address, RouterClient(address) as client:
            with pytest.raises(ServiceError) as caught:
                client.route("x")
            assert (caught.value.retry_after_s, caught.value.service_retryable) == (1.25, True)
            async with AsyncRouterClient(address) as other:
                with pytest.raises(ServiceError) as caught:
                    await other.route("x")
                assert caught.value.retry_after_s == 1.25

    def test_it_is_obeyed_where_the_client_retries_by_itself(self) -> None:
        asked: list[float] = []

        def route(metadata: dict[str, str]) -> pb.RouteResponse:
            asked.append(time.monotonic())
            if len(asked) == 1:
                error = NotReadyError("loading")
                error.retry_after_s = 1.0
                raise error
            return pb.RouteResponse(decision=routing_pb2.Decision(chosen="small"))

        with serving(route) as address, RouterClient(address) as client:
            assert client.route("x").chosen == "small"
        # Its own first wait is a tenth of a second.
        assert asked[1] - asked[0] > 0.8

    @pytest.mark.parametrize(("seconds", "nanos", "wanted"), [(0, 0, 0.0), (2, 5 * 10**8, 2.5), (-9, 0, 0.0)])
    def test_a_hint_is_never_negative(self, seconds: int, nanos: int, wanted: float) -> None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds, retry.retry_delay.nanos = seconds, nanos
        packed = any_pb2.Any()
        packed.Pack(retry)
        assert service_error(status_pb2.Status(code=14, details=[packed])).retry_after_s == wanted


class TestNewerServices:
    @pytest.mark.parametrize("number", [0, 99, 2**31 - 1, -1])
    def test_a_reason_that_this_version_does_not_know_is_unknown(self, number: int) -> None:
        decision = conversion.decision_from_wire(routing_pb2.Decision.FromString(b"\x28" + varint(number)))
        assert decision.reason is Reason.UNKNOWN
        assert conversion.decision_to_wire(decision).reason == routing_pb2.REASON_UNSPECIFIED

    @pytest.mark.parametrize("number", [0, 99])
    def test_so_is_an_outcome(self, number: int) -> None:
        attempt = routing_pb2.Attempt.FromString(b"\x10" + varint(number))
        delivery = deliveries.delivery_from_wire(routing_pb2.Delivery(attempts=[attempt]))
        assert [one.outcome for one in delivery.attempts] == [AttemptOutcome.UNKNOWN]
        assert deliveries.delivery_to_wire(delivery).attempts[0].outcome == routing_pb2.ATTEMPT_OUTCOME_UNSPECIFIED

    def test_a_status_of_a_code_that_grpc_does_not_have_is_unknown(self) -> None:
        assert service_error(status_pb2.Status(code=77, message="new")).code == "UNKNOWN"

    def test_details_that_are_no_messages_are_left_out(self) -> None:
        broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
        assert service_error(status_pb2.Status(code=5, details=[broken])).service_reason == ""

    def test_every_value_of_ours_survives_the_way_there_and_back(self) -> None:
        for reason in set(Reason) - {Reason.UNKNOWN}:
            message = routing_pb2.Decision(reason=routing_pb2.Reason.Value(f"REASON_{reason.value}"))
            assert conversion.decision_from_wire(message).reason is reason


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class TestOddValues:
    @pytest.mark.parametrize(
        "value",
        [
            *(float("nan"), float("inf"), 10**400, 2**53 + 1, 2**63 + 1, "\ud800", {"\ud800": 1}, {1: 2}, b"x"),
            *(object(), nested(32), nested(970), {"a": nested(40)}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_the_wire_would_change_or_cannot_carry_is_refused_here(self, value: Any) -> None:
        with pytest.raises(InvalidRequestError, match="parameters"):
            conversion.query_to_wire(RouteQuery.from_prompt("x", parameters={"seed": value}))

    @pytest.mark.parametrize("value", [2**53, -(2**53), 2**60, -0.0, 1e308, "", "\x00", nested(30), None, True, ()])
    def test_what_it_can_carry_arrives(self, value: Any) -> None:
        query = conversion.query_from_wire(
            conversion.query_to_wire(RouteQuery.from_prompt("x", parameters={"x": value}))
        )
        assert query.parameters["x"] == (list(value) if isinstance(value, tuple) else value)

    @pytest.mark.parametrize(
        "messages",
        [
            ({"role": "user", "content": "\ud800"},),
            ({"role": 5, "content": "x"},),
            ({"role": "user", "content": 5},),
            ({"role": "user", "content": [5]},),
            ({"role": "user", "content": [{"type": "text", "text": 5}]},),
            ({"role": "assistant", "tool_calls": 5},),
            ({"role": "assistant", "tool_calls": [5]},),
            ({"role": "user", "content": "x", "extra": float("nan")},),
            ("no message",),
        ],
        ids=str,
    )
    def test_messages_of_no_shape_are_refused_by_name(self, messages: Any) -> None:
        with pytest.raises(InvalidRequestError, match=r"messages\[0\]"):
            conversion.query_to_wire(RouteQuery(messages))

    @pytest.mark.parametrize(
        "rest", [{"session_id": "\ud800"}, {"session_id": 5}, {"overrides": Overrides(pin="\ud800")}], ids=str
    )
    def test_so_is_text_that_is_none(self, rest: Any) -> None:
        with pytest.raises(InvalidRequestError, match="valid Unicode"):
            conversion.query_to_wire(RouteQuery.from_prompt("x", **rest))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_risk": True},
            {"max_risk": "0.5"},
            {"min_gain": False},
            {"max_cost_usd": [1]},
            {"pin": 5},
            {"policy": b"main"},
            {"require_region": ["eu"]},
            {"allowed_candidates": "small"},
            {"denied_candidates": {"small"}},
            {"allowed_candidates": ("small",) * 1001},
        ],
        ids=str,
    )
    def test_overrides_of_the_wrong_type_are_refused_where_they_are_made(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
            Overrides(**wrong)

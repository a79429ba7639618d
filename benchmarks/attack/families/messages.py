"""Send messages over gRPC that are expensive to decode, or that grow when they are unpacked."""

from __future__ import annotations

import contextlib
import time

from benchmarks.attack.http2 import calls_ended, open_calls
from benchmarks.attack.target import SERVICE, Found, Target, p99_ms
from router.pb import router_service_pb2 as pb

MB = 1_000_000
#: Calls that are begun and never finished, how many of them are waited for, and after how many seconds no more are.
CALLS, MAX_UNFINISHED, FEW_S = 300, 64, 10.0

#: Seconds after which no message is waited for, and how much later is too late.
WHOLE_S, LATE_S = 30.0, 10.0

HEALTH = "/grpc.health.v1.Health/Check"
ENVOY = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


def struct_of_small_values(target: Target) -> Found:
    """Send a Struct of 16 MB of nulls in a list."""
    null = b"\x0a\x02\x08\x00"
    value = _field(6, null * (3 * MB))
    return _called(target, _field(2, b"hi") + _field(5, _field(1, _field(1, b"a") + _field(2, value))))


def struct_of_many_keys(target: Target) -> Found:
    """Send a Struct of a million keys."""
    keys = b"".join(_field(1, _field(1, b"%d" % number) + b"\x12\x02\x08\x00") for number in range(MB))
    return _called(target, _field(2, b"hi") + _field(5, keys))


def empty_chat_messages(target: Target) -> Found:
    """Send eight million empty messages of a chat."""
    return _called(target, _field(1, b"\x0a\x00" * (7 * MB)))


def role_of_sixty_megabytes(target: Target) -> Found:
    """Send a role of 60 MB."""
    return _called(target, _field(1, _field(1, _field(1, b"r" * (60 * MB)))))


def role_of_fifteen_megabytes(target: Target) -> Found:
    """Send a role of 15 MB, which is within the limit on messages."""
    return _called(target, _field(1, _field(1, _field(1, b"r" * (15 * MB)))))


def unknown_fields(target: Target) -> Found:
    """Send eight million fields that nobody knows."""
    return _called(target, _field(2, b"hi") + b"\x78\x01" * (7 * MB))


def unknown_fields_to_health(target: Target) -> Found:
    """Send eight million fields that nobody knows to the health service."""
    return target.attacked_by(lambda: target.call(b"\x78\x01" * (7 * MB), HEALTH))


def nested_values(target: Target) -> Found:
    """Send lists within lists, as deep as they go into 100 KB."""
    value = b"\x08\x00"
    while len(value) < 100_000:
        value = _field(6, _field(1, value))
    return _called(target, _field(2, b"hi") + _field(5, _field(1, _field(1, b"a") + _field(2, value))))


def many_tool_calls(target: Target) -> Found:
    """Send a message with a million empty tool calls."""
    return _called(target, _field(1, _field(1, _field(1, b"user") + _field(2, b"hi") + b"\x2a\x00" * MB)))


def names_of_candidates(target: Target) -> Found:
    """Send overrides that allow a million candidates."""
    return _called(target, _field(2, b"hi") + _field(3, b"\x1a\x01a" * MB))


def batch_that_is_settled(target: Target) -> Found:
    """Send a batch of 1,024 requests that name their candidate."""
    pinned = pb.RouteRequest(prompt="hello", overrides=pb.RouteRequest().overrides.__class__(pin="gpt-4-turbo"))
    batch = pb.BatchRouteRequest(requests=[pinned] * 1024).SerializeToString()
    return target.attacked_by(lambda: target.call(batch, SERVICE + "BatchRoute"), at_once=4)


def batch_of_long_prompts(target: Target) -> Found:
    """Send a batch of a thousand prompts of 15 KB."""
    batch = pb.BatchRouteRequest(requests=[pb.RouteRequest(prompt="word " * 3000)] * 1000).SerializeToString()
    return target.attacked_by(lambda: target.call(batch, SERVICE + "BatchRoute"))


def batch_of_empty_requests(target: Target) -> Found:
    """Send a batch of seven million empty requests."""
    return target.attacked_by(lambda: target.call(b"\x0a\x00" * (7 * MB), SERVICE + "BatchRoute"))


def gzip_bomb(target: Target) -> Found:
    """Return a compressed message of 60 KB that unpacks to 60 MB."""
    message = _field(2, b"a" * (60 * MB))
    return target.attacked_by(lambda: target.call(message, gzip=True), at_once=4)


def gzip_bomb_within_bounds(target: Target) -> Found:
    """Send a message of 15 KB that unpacks to 15 MB."""
    message = _field(2, b"a" * (15 * MB))
    return target.attacked_by(lambda: target.call(message, gzip=True), at_once=4)


def forty_gzip_bombs(target: Target) -> Found:
    """Send forty messages at once of 60 KB that unpack to 60 MB."""
    message = _field(2, b"a" * (60 * MB))
    return target.attacked_by(lambda: target.call(message, gzip=True), at_once=40)


def messages_that_never_finish(target: Target) -> Found:
    """Send three hundred messages of 16 MB of which 8 KB come: few are waited for, and none for long."""
    beginning = b"\0" + (15 * MB).to_bytes(4) + b"a" * 8192
    before, began = target.rss_mb(), time.monotonic()
    with contextlib.ExitStack() as stack:
        opened = [(stack.enter_context(target.connect(target.grpc)), bytearray()) for _ in range(6)]
        for connection, _ in opened:
            # What all calls of a connection may send before the server allows more is 64 KB.
            open_calls(connection, SERVICE + "Route", CALLS // len(opened), beginning[: 60_000 * len(opened) // CALLS])
        height, left, few_after_s = before, CALLS, WHOLE_S + LATE_S
        while left and time.monotonic() < began + (WHOLE_S + LATE_S) * target.factor:
            time.sleep(0.2)
            height = max(height, target.rss_mb())
            left = CALLS - sum(calls_ended(*one) for one in opened)
            if left <= MAX_UNFINISHED:
                few_after_s = min(few_after_s, time.monotonic() - began)
    took = time.monotonic() - began
    measured = {
        "calls_left": left,
        "few_after_s": round(few_after_s, 1),
        "ended_after_s": round(took, 1),
        "attacked_p99_ms": p99_ms(target.waits(began, time.monotonic())),
        "grown_mb": round(height - before, 1),
    }
    return Found(measured, {"calls_left": 0, "few_after_s": FEW_S * target.factor, "grown_mb": 200})


def headers_for_envoy(target: Target) -> Found:
    """Send a message of Envoy's with a million headers."""
    headers = _field(1, _field(1, b"\x0a\x00" * MB))
    return target.attacked_by(lambda: target.call(_field(2, headers), ENVOY))


def attributes_for_envoy(target: Target) -> Found:
    """Send a message of Envoy's with a Struct of 12 MB among its attributes."""
    struct = _field(1, _field(1, b"a") + _field(2, _field(6, b"\x0a\x02\x08\x00" * (3 * MB))))
    return target.attacked_by(lambda: target.call(_field(9, _field(1, b"k") + _field(2, struct)), ENVOY))


def no_message_for_envoy(target: Target) -> Found:
    """Send bytes that are no message to Envoy's service."""
    return target.attacked_by(lambda: target.call(b"\xff" * 100, ENVOY))


def json_in_a_user_id(target: Target) -> Found:
    """Send a user id of 15 MB that is JSON of five million empty lists, in which a session might be looked for."""
    text = b'{"session_id":"s","x":[' + b"[]," * (5 * MB - 10) + b"[]]}"
    user_id = _field(1, _field(1, b"user_id") + _field(2, _field(3, text)))
    return _called(
        target, _field(2, b"hi") + _field(5, _field(1, _field(1, b"metadata") + _field(2, _field(5, user_id))))
    )


def session_id_of_fifteen_megabytes(target: Target) -> Found:
    """Send a session id of 15 MB."""
    request = pb.RouteRequest(prompt="hi", session_id="s" * (15 * MB))
    return _called(target, request.SerializeToString())


def batch_of_many_values(target: Target) -> Found:
    """Send a batch of twenty requests, each small, that hold as many values as pass."""
    request = pb.RouteRequest(prompt="hi")
    request.parameters["x"] = [None] * 1200
    batch = pb.BatchRouteRequest(requests=[request] * 20).SerializeToString()
    return target.attacked_by(lambda: target.call(batch, SERVICE + "BatchRoute"))


def picture(target: Target) -> Found:
    """Send a picture of 15 MB, which is answered."""
    request = pb.RouteRequest()
    message = request.chat.messages.add(role="user")
    message.parts.parts.add().image_url.url = "data:image/png;base64," + "QUJD" * (15 * MB // 4)
    request.overrides.pin = "gpt-4-turbo"
    asked = pb.CompleteRequest(route=request).SerializeToString()
    return target.attacked_by(lambda: target.call(asked, SERVICE + "Complete"))


def as_many_headers_for_envoy_as_pass(target: Target) -> Found:
    """Send a message of Envoy's with 16,000 headers."""
    header = _field(1, b":path") + _field(3, b"/v1/chat/completions")
    return target.attacked_by(lambda: target.call(_field(2, _field(1, _field(1, header) * 16_000)), ENVOY))


def _called(target: Target, message: bytes) -> Found:
    return target.attacked_by(lambda: target.call(message))


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


ATTACKS = (
    *(struct_of_small_values, struct_of_many_keys, empty_chat_messages, role_of_sixty_megabytes),
    *(role_of_fifteen_megabytes, unknown_fields, unknown_fields_to_health, nested_values, many_tool_calls),
    *(names_of_candidates, batch_that_is_settled, batch_of_long_prompts, batch_of_empty_requests, gzip_bomb),
    *(forty_gzip_bombs, messages_that_never_finish),
    *(gzip_bomb_within_bounds, headers_for_envoy, attributes_for_envoy, no_message_for_envoy),
    *(json_in_a_user_id, session_id_of_fifteen_megabytes, batch_of_many_values, picture),
    as_many_headers_for_envoy_as_pass,
)
QUICK = (struct_of_small_values, no_message_for_envoy)

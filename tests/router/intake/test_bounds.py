"""The budget of bytes, the thread for large requests, and the count of fields in protobuf messages hold."""

from __future__ import annotations

import asyncio
import threading

import pytest

from router.errors import InvalidRequestError, OverloadedError
from router.intake.bounds import FREE_BYTES, Intake, forget_frames
from router.intake.protobuf_structure import check_fields, shape_of
from router.pb import router_service_pb2 as pb


def test_bytes_beyond_the_free_ones_count_until_the_request_ends():
    intake = Intake(max_bytes=1000)
    with intake.hold_bytes() as first, intake.hold_bytes() as second:
        first.add(FREE_BYTES)
        first.add(900)
        second.add(FREE_BYTES)
        with pytest.raises(OverloadedError) as caught:
            second.add(101)
        assert caught.value.retry_after_s
        assert intake.held_bytes == 900
    assert intake.held_bytes == 0


async def test_one_thread_does_large_work_in_turn_and_too_many_jobs_are_refused():
    intake, go_on = Intake(max_waiting=2), threading.Event()
    first = asyncio.create_task(intake.run_in_thread(go_on.wait, 30))
    second = asyncio.create_task(intake.run_in_thread(threading.current_thread))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await intake.run_in_thread(threading.current_thread)
    assert not second.done()
    go_on.set()
    assert await first
    assert await second is not threading.main_thread()
    intake.close()


def test_an_error_without_its_frames_keeps_no_request_in_memory():
    def fail() -> None:
        try:
            {}["x"]
        except KeyError as error:
            raise InvalidRequestError("x") from error

    with pytest.raises(InvalidRequestError) as caught:
        fail()
    told = caught.value
    forget_frames(told)
    assert told.__traceback__ is None
    assert told.__cause__ is not None
    assert told.__cause__.__traceback__ is None


def test_known_and_unknown_fields_are_counted_at_every_level():
    request = pb.RouteRequest(prompt="hello", session_id="s")
    request.overrides.allowed_candidates.extend(["a", "b"])
    request.parameters.update({"a": [1, {"b": None}]})
    shape = shape_of(pb.RouteRequest.DESCRIPTOR)
    data = request.SerializeToString()
    # prompt, session_id, overrides, two names, parameters; entry, key, value, list, two values, number, struct, entry,
    # key, value, null.
    assert check_fields(data, shape) == 18
    assert check_fields(data + b"\x78\x01" * 10, shape) == 28
    check_fields(data, shape, max_fields=18)
    with pytest.raises(InvalidRequestError, match="at most 17 fields"):
        check_fields(data, shape, max_fields=17)


@pytest.mark.parametrize("data", [b"\x0a", b"\x80", b"\x78\x80", b"\x0a\x80"])
def test_a_message_that_is_cut_off_is_refused(data):
    with pytest.raises(InvalidRequestError, match="cut off"):
        check_fields(data, shape_of(pb.RouteRequest.DESCRIPTOR))

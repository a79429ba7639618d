"""Run the fuzzer for a short time (`make fuzz-doors` runs it long), and test that it would notice a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tests.fuzz import cases, protobuf
from tests.fuzz.__main__ import Run, fuzz, stored, tracebacks_in
from tests.fuzz.cases import Case
from tests.fuzz.doors import Doors, Ended


async def test_no_input_causes_a_5xx_an_internal_error_or_a_traceback(tmp_path: Path) -> None:
    # Always the same cases, so that the test fails because of a change and not of a draw. The long form draws others.
    report = await fuzz(3000, 0, seconds=10, seeds=None, log=tmp_path / "log")
    assert report["faults"] == {}, report["examples"]
    # On a slow machine the time ends before the new cases do, but never before the stored ones.
    assert report["requests"] >= len(stored())
    assert tracebacks_in(tmp_path / "log") == 0


async def test_what_fails_is_made_smaller_and_stored(tmp_path: Path) -> None:
    class Faulty:
        async def send(self, case: Case) -> Ended:
            is_bad = "nan" in str(case)
            return Ended("INTERNAL", "INTERNAL") if is_bad else Ended("OK")

    run = Run(cast(Doors, Faulty()), tmp_path)
    inside = protobuf.struct_tree({"temperature": float("nan"), "user": "somebody"})
    case = {"door": "grpc", "method": "/x/Route", "metadata": [["a", "b"]], "messages": [[[5, "m", inside]]]}
    await run.try_out(iter([(7, case)]), float("inf"))
    assert run.faults.total() == 1
    (example,) = run.examples
    assert "somebody" not in str(example["case"])
    assert "nan" in str(example["case"])


def test_equal_numbers_draw_equal_cases_and_every_door_is_drawn() -> None:
    drawn: list[Any] = [cases.draw(number) for number in range(300)]
    assert drawn == [cases.draw(number) for number in range(300)]
    methods = {case["method"].rpartition("/")[2] for case in drawn}
    assert {"Route", "BatchRoute", "Complete", "StreamComplete", "GetPolicy", "Process", "POST"} <= methods

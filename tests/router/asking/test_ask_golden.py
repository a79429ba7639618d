"""The transcripts in tests/golden/ask are read as they say, in this process and over gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.asking.ask import extract
from router.client import RouterClient
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.errors import RouterError, ServiceError
from router.values import RouteQuery

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "ask").glob("*.json"))


def read(path: Path) -> tuple[RouteQuery, dict[str, Any]]:
    case = json.loads(path.read_text("utf-8"))
    return RouteQuery(tuple(case["messages"]), parameters=case["parameters"]), case["expected"]


def test_there_are_transcripts_of_every_format() -> None:
    kinds = {path.name.partition("-")[0] for path in GOLDEN}
    assert kinds == {"openai", "anthropic", "responses", "harness", "language"}
    assert len(GOLDEN) >= 25


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_ask_is_what_the_transcript_expects(path: Path) -> None:
    query, expected = read(path)
    ask = extract(query, max_bytes=100_000)
    found = {
        "text": ask.text,
        "language": ask.language,
        "has_code": ask.has_code,
        "needs": sorted(ask.needs),
        "n_images": ask.n_images,
        "in_tool_loop": ask.in_tool_loop,
        "max_output_tokens": ask.max_output_tokens,
        "input_tokens_estimate": ask.input_tokens_estimate,
    }
    assert found == expected
    assert ask.unknown_parts == ()


def outcome(decide: Callable[[RouteQuery], RoutingDecision], query: RouteQuery) -> tuple[object, ...]:
    try:
        decision = decide(query)
    except ServiceError as error:
        return (error.service_reason,)
    except RouterError as error:
        return (error.reason,)
    return decision.chosen, decision.reason, decision.candidates, decision.input_tokens_estimate


def test_the_wire_changes_nothing_that_is_read(client: RouterClient, router: Router) -> None:
    here = [outcome(router.decide, read(path)[0]) for path in GOLDEN]
    there = [outcome(client.route, read(path)[0]) for path in GOLDEN]
    assert here == there
    # Audio and files are beyond both candidates of the default policy.
    assert sorted(
        path.stem for path, found in zip(GOLDEN, here, strict=True) if found == ("NO_ELIGIBLE_CANDIDATE",)
    ) == [
        "anthropic-document",
        "openai-audio",
    ]

"""LiteLLM is imported whole or not at all, once, and nobody sees it while it is half imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Return what `importing_litellm` found in a process of its own."""
    argv = [sys.executable, "-m", "tests.router.answering.upstreams.importing_litellm"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_import_that_fails_leaves_nothing_and_says_why(report: dict[str, Any]) -> None:
    assert report["failed"] == {
        "said": [
            "answering needs LiteLLM, whose package some.package is not installed.",
            "answering needs LiteLLM, which is installed but cannot be imported; the log says why.",
        ],
        "left": [],
    }


def test_it_does_not_spoil_the_next_one_and_others_wait_for_the_whole(report: dict[str, Any]) -> None:
    assert (report["loaded"]["whole"], report["loaded"]["answer"]) == (True, "hello")


def test_a_request_that_gives_up_while_it_is_imported_does_not_make_another_import_it_twice(
    report: dict[str, Any],
) -> None:
    # Two threads at once would see each other's modules half made.
    assert report["loaded"]["most"] == 1


def test_the_collector_rests_while_it_is_imported_and_never_looks_through_it(report: dict[str, Any]) -> None:
    # A pass would hold up everybody for a tenth of a second.
    assert (report["collected"]["on"], report["collected"]["full_passes"]) == (True, 0)
    assert report["collected"]["exempt"] > 100_000
    assert report["collected"]["looked_at"] < report["collected"]["exempt"] / 2


def test_errors_are_not_searched_for_keys_by_litellm_which_takes_long_steps(report: dict[str, Any]) -> None:
    assert report["errors"] == {"status": 500, "kind": "InternalServerError", "searched": []}

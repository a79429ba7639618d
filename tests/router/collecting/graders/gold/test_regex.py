from __future__ import annotations

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.naming import grader_named
from tests.router.collecting.graders.grading import score, verdict


async def test_the_pattern_is_the_graders_or_the_reference() -> None:
    assert await score(r"regex:pattern=\d{1,3} EUR", "It costs 12 EUR.") == 1
    assert await score("regex", "It costs 12 EUR.", reference=r"\bUSD\b") == 0
    assert grader_named("regex:pattern=x").needs == set()
    assert grader_named("regex").needs == {"reference"}
    assert (await verdict("regex", "x")).score is None


async def test_case_and_the_whole_answer() -> None:
    assert await score("regex:pattern=yes,ignore_case=true", "YES!") == 1
    assert await score("regex:pattern=yes", "YES!") == 0
    assert await score("regex:pattern=yes,whole=true", " yes\n") == 1
    assert await score("regex:pattern=yes,whole=true", "yes!") == 0


async def test_catastrophic_backtracking_gives_no_score_in_bounded_time() -> None:
    found = await verdict(r"regex:pattern=^(a|aa|b?a)+$", "a" * 5_000 + "!")
    assert found.score is None
    assert "more than 1 s" in found.reason


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "x" * 9_999 + "(" * 2, "(?P<a>x)(?P<"])
def test_a_broken_pattern_of_the_grader_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(GraderError):
        grader_named(f"regex:pattern={pattern}")


async def test_a_broken_pattern_of_a_sample_gives_no_score() -> None:
    found = await verdict("regex", "x", reference="(")
    assert found.score is None
    assert "no regular expression" in found.reason

from __future__ import annotations

import pytest

from router.collecting.graders.naming import grader_named
from tests.router.collecting.graders.grading import score, verdict


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("The capital is Paris, of course.", "paris", 1),
        ("Parisian cafés", "paris", 0),
        ("It is 7.", "7", 1),
        ("It is 1,275.", "7", 0),
        ("It is 1,275.", "275", 0),
        ("It is 7.5", "7", 0),
        ("It is 7, I think", "7", 1),
        ("C++ it is", "C++", 1),
        ("答案是北京。", "北京", 1),
        ("nothing", "something", 0),
    ],
)
async def test_the_text_counts_only_where_it_stands_alone(text: str, wanted: str, expected: float) -> None:
    assert await score("contains", text, reference=wanted) == expected


async def test_the_text_may_be_the_graders_own_and_may_have_to_be_absent() -> None:
    assert await score("contains:text=I am sorry, but,absent=true", "I am sorry, but no.") == 0
    assert await score("contains:text=I am sorry, but,absent=true", "Yes.") == 1
    assert grader_named("contains:text=x").needs == set()


async def test_without_any_text_there_is_no_score() -> None:
    found = await verdict("contains", "Paris")
    assert found.score is None
    assert "reference" in found.reason
    assert grader_named("contains").needs == {"reference"}

"""No answer makes a grader hang or break, however odd it is."""

from __future__ import annotations

import pytest

from tests.router.collecting.graders.grading import ODD_ANSWERS, score

GRADERS = {
    "choice": "B",
    "contains": "42",
    "exact": "42",
    "json_schema": '{"type": "object"}',
    "number": "42",
    "regex": r"^(a+)+$",
}


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize("index", range(len(ODD_ANSWERS)))
async def test_an_odd_answer_is_wrong_or_has_no_score(name: str, index: int) -> None:
    found = await score(name, ODD_ANSWERS[index], reference=GRADERS[name], choices=("a1", "b2"))
    assert found in {0.0, None} or (name, index) == ("regex", 4)

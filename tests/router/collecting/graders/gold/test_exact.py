from __future__ import annotations

import pytest

from router.collecting.graders.naming import grader_named
from tests.router.collecting.graders.grading import score, verdict


@pytest.mark.parametrize("text", ["Paris", " paris.\n", "PARIS!", '"Paris"', "**Paris**", "Ｐａｒｉｓ", "`Paris`."])
async def test_case_blanks_width_quotes_and_closing_punctuation_make_no_difference(text: str) -> None:
    assert await score("exact", text, reference="Paris") == 1


@pytest.mark.parametrize("text", ["Lyon", "Paris, France", "", "-Paris", "Par is"])
async def test_another_answer_scores_zero(text: str) -> None:
    assert await score("exact", text, reference="Paris") == 0


async def test_case_counts_if_that_is_asked_for() -> None:
    assert await score("exact:case=true", "paris", reference="Paris") == 0
    assert await score("exact:case=true", "Paris.", reference="Paris") == 1


async def test_a_sign_alone_is_an_answer() -> None:
    assert await score("exact", "!", reference="!") == 1
    assert await score("exact", "", reference="!") == 0


async def test_a_sample_without_reference_has_no_score_and_says_why() -> None:
    found = await verdict("exact", "Paris")
    assert found.score is None
    assert "reference" in found.reason
    assert grader_named("exact").needs == {"reference"}

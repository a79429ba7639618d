from __future__ import annotations

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.gold.quantities import final_quantity
from router.collecting.graders.naming import grader_named
from tests.router.collecting.graders.grading import score, verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 42),
        ("The result is -3.5.", -3.5),
        ("−7", -7),
        ("5-3", 3),
        ("1,234,567", 1_234_567),
        ("1.234.567", 1_234_567),
        ("1.234,5", 1234.5),
        ("1,234.5", 1234.5),
        ("3,14", 3.14),
        ("0,125", 0.125),
        ("1,234", 1234),
        ("12'500", 12500),
        ("12\u202f500", 12500),
        (".5", 0.5),
        ("6.02e23", 6.02e23),
        ("1.2 × 10³", 1200),
        ("1.2 \\times 10^{-3}", 0.0012),
        ("3/4", 0.75),
        ("1 1/2", 1.5),
        ("1½", 1.5),
        ("\\frac{3}{4}", 0.75),
        ("$-\\dfrac{1}{2}$", -0.5),
        ("$1,000", 1000),
        ("3 million people", 3e6),
        ("first 1 then 2", 2),
        ("\\boxed{12} as shown in step 3", 12),
        ("\\boxed{1} no, \\boxed{x=2}. See 9", 2),
        ("The answer is 42 (see section 3).", 42),
        ("The answer is: 6 * 7 = 42\nChecked 2 times.", 42),
        ("#### 18", 18),
        ("**Answer:** 5. It took 3 steps", 5),
        ("The answer is in section 9.", 9),
    ],
)
def test_the_number_that_a_text_ends_in(text: str, expected: float) -> None:
    found = final_quantity(text)
    assert found is not None
    assert found.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", ["", "none", "1/0", "9e999", "forty-two"])
def test_a_text_without_number(text: str) -> None:
    assert final_quantity(text) is None


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("1.5 km", "1500 m", 1),
        ("1500", "1500 m", 1),
        ("1500 m", "1500", 1),
        ("1500 g", "1500 m", 0),
        ("It takes 90 minutes", "1.5 hours", 1),
        ("36 km/h", "10 m/s", 1),
        ("5 in total", "5 cm", 1),
        ("50%", "0.5", 1),
        ("0.5", "50 %", 1),
        ("50", "50 percent", 1),
        ("50\\%", "50%", 1),
        ("5%", "50%", 0),
        ("5", "0.05", 0),
        ("41.99", "42", 0),
    ],
)
async def test_units_and_percentages(text: str, reference: str, expected: float) -> None:
    assert await score("number", text, reference=reference) == expected


async def test_the_tolerance_is_relative_or_absolute_whichever_is_larger() -> None:
    assert await score("number:tolerance=0.01", "41.6", reference="42") == 1
    assert await score("number:tolerance=0.01", "41.5", reference="42") == 0
    assert await score("number:absolute=0.5", "41.5", reference="42") == 1
    assert await score("number:tolerance=0.01", "0.004", reference="0") == 0
    assert await score("number:tolerance=0.01,absolute=0.01", "0.004", reference="0") == 1


async def test_the_unit_may_be_required() -> None:
    assert await score("number:unit=true", "1500", reference="1500 m") == 0
    assert await score("number:unit=true", "1.5 km", reference="1500 m") == 1


async def test_an_answer_without_number_is_wrong_and_a_reference_without_one_gives_no_score() -> None:
    assert await score("number", "forty-two", reference="42") == 0
    assert (await verdict("number", "42", reference="many")).score is None
    assert (await verdict("number", "42")).reason == "the sample has no reference"


@pytest.mark.parametrize("spec", ["number:tolerance=-1", "number:absolute=-0.1"])
def test_a_negative_tolerance_is_refused(spec: str) -> None:
    with pytest.raises(GraderError, match="must be 0 or more"):
        grader_named(spec)

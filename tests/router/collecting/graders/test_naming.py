from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar

import pytest

from router.collecting.graders import naming
from router.collecting.graders.base import Grader, GraderError, GradingContext
from router.collecting.graders.naming import OURS, grader_named, grader_names
from router.collecting.values import ModelAnswer, Sample, Verdict
from tests.router.collecting.graders.grading import score


@dataclass(frozen=True)
class Length(Grader):
    """A grader as a user may write it."""

    name: ClassVar[str] = "length"

    most: int = 10
    scale: float | None = None
    unit: str = "letters"

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        return self.verdict(float(len(answer.text) <= self.most))


@pytest.fixture
def _length_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        metadata.EntryPoint("length", f"{__name__}:Length", naming.ENTRY_POINTS),
        metadata.EntryPoint("broken", f"{__name__}:score", naming.ENTRY_POINTS),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == naming.ENTRY_POINTS else [])


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_grader_of_ours_says_its_own_name(name: str) -> None:
    module, _, attribute = OURS[name].partition(":")
    made = getattr(__import__(f"router.collecting.graders.{module}", fromlist=[attribute]), attribute)
    assert made.name == name
    assert issubclass(made, Grader)


@pytest.mark.usefixtures("_length_installed")
async def test_a_class_of_another_package_is_a_grader_with_typed_parameters() -> None:
    assert "length" in grader_names()
    assert grader_named("length:most=3, scale=0.5,unit=a,b") == Length(3, 0.5, "a,b")
    assert await score("length:most=3", "four") == 0


@pytest.mark.usefixtures("_length_installed")
def test_a_value_with_a_comma_and_a_name_is_written_as_json() -> None:
    assert grader_named('length:unit="a,most=1",most=2') == Length(2, unit="a,most=1")
    assert grader_named('length:unit="a" b') == Length(unit='"a" b')


@pytest.mark.usefixtures("_length_installed")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("exakt", "Did you mean exact"),
        ("", "There are: agreement, broken, choice"),
        ("exact:caes=true", "Did you mean case"),
        ("exact:case=maybe", "must be true or false"),
        ("exact:true", "name=value"),
        ("exact:case=true,case=false", "twice"),
        ("length:most=3.5", "a whole number, got '3.5'"),
        ("length:scale=nan", "a number, got 'nan'"),
        ("broken", "subclass of Grader"),
        ("x" * 20_000, "at most 10,000 characters"),
    ],
)
def test_a_wrong_description_is_refused_with_the_nearest_right_one(spec: str, said: str) -> None:
    with pytest.raises(GraderError) as caught:
        grader_named(spec)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.usefixtures("_length_installed")
def test_the_version_changes_with_name_parameters_and_code_and_with_nothing_else() -> None:
    versions = {grader_named(spec).version for spec in ("exact", "exact:case=true", "length", "length:most=3")}
    assert len(versions) == 4
    assert grader_named("length:most=3").version == Length(3).version

    class Newer(Length):
        code_version = 2

    assert Newer().version != Length().version

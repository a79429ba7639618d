"""A certificate is about people if people graded a random part of the data, and says so; else it is about the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from probes.certificates.bounds import MeanBound, excludes
from probes.certificates.human_grades import GradedLosses
from router.errors import ConfigError
from router.policies.certificate import say_certificate
from router.policies.loading import load_policy
from tests.router.tuning.certifying.tune_verb import PAIR, answer_of, run, tune
from tests.tuning_outcomes import MODELS, chances, features

LIMIT = ("--max-loss", 0.08)
RECTIFIED = MeanBound("rectified")


def write_graded(path: Path, n: int, people: float = 0.25, kind: float = 0.0, **extra: object) -> Path:
    """Write n prompts with a judge's scores, and people's for a random part of them.

    The judge takes the given share of the weak model's wrong answers for right ones, and is right otherwise.
    """
    rng = np.random.default_rng(7)
    texts = [f"{path.stem} {i}" for i in range(n)]
    right = rng.random((n, 2)) < chances(features(texts))
    judged = right.copy()
    judged[:, 0] |= rng.random(n) < kind
    for_people = rng.random(n) < people
    rows = []
    for i, text in enumerate(texts):
        for j, model in enumerate(MODELS):
            row: dict[str, Any] = {"prompt": text, "prompt_id": str(i), "model": model, "grader": "judge"}
            row |= {"score": float(judged[i, j]), "group": f"g{i % 2}"} | extra
            rows.append(row | ({"human_score": float(right[i, j]), "human_drawn": "random"} if for_people[i] else {}))
    return write_rows(path, rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def change(path: Path, edit: Any) -> Path:
    """Rewrite a file after `edit` of each row, in place."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        edit(row)
    return write_rows(path, rows)


class TestPeople:
    def test_the_certificate_is_about_people_and_says_how_many(self, data_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        data = write_graded(tmp_path / "graded.jsonl", 3000, kind=0.3)
        found = answer_of(tune(data_folder, *PAIR, *LIMIT, "--out", out, data=data))
        assert found["certified"]
        assert found["about"] == "people"
        assert 600 < found["n_human"] < 900
        assert (found["n_calibration"], found["targets"][0]["method"]) == (3000, "rectified")
        certificate = yaml.safe_load(out.read_text())["certificate"]
        assert (certificate["about"], certificate["n_human"]) == ("people", found["n_human"])
        said = say_certificate(load_policy(out).certificate)
        assert f"quality is what people say, who graded {found['n_human']} of these prompts" in said

    def test_a_kind_judge_lets_more_through_than_people_do(self, data_folder: Path, tmp_path: Path) -> None:
        data = write_graded(tmp_path / "kind.jsonl", 2000, kind=0.4)
        people = answer_of(tune(data_folder, *PAIR, *LIMIT, data=data))
        judge = answer_of(tune(data_folder, *PAIR, *LIMIT, "--about", "judge", data=data))
        assert (people["about"], judge["about"], judge["n_human"]) == ("people", "judge judge", 0)
        assert judge["weak_share"] > people["weak_share"] + 0.1

    def test_if_people_graded_everything_the_judge_is_not_needed(self, data_folder: Path, tmp_path: Path) -> None:
        whole = write_graded(tmp_path / "whole.jsonl", 1200, people=1.0, kind=0.4)
        change(whole, lambda row: row.pop("human_drawn"))
        found = answer_of(tune(data_folder, *PAIR, *LIMIT, data=whole))
        assert (found["about"], found["n_human"], found["targets"][0]["method"]) == ("people", 1200, "ternary")
        alone = change(whole, lambda row: row.update(score=row.pop("human_score")))
        judged = answer_of(tune(data_folder, *PAIR, *LIMIT, data=alone))
        assert found["loss_upper_bound"] == judged["loss_upper_bound"]

    def test_the_other_targets_groups_and_the_plan_work_with_human_grades(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        data = write_graded(tmp_path / "more.jsonl", 1000, people=0.4)
        limits = ("--max-loss", 0.2, "--min-quality", 0.5, "--max-strong-share", 0.95, "--by", "group", "--plan")
        found = answer_of(tune(data_folder, *PAIR, *limits, data=data))
        assert found["certified"]
        assert [t["method"] for t in found["targets"]] == ["rectified", "rectified", "binomial"]
        assert sum(group["n"] for group in found["groups"].values()) == found["n_human"]
        assert all(point["n"] <= 4 * found["n_human"] for point in found["plan"]["curve"])

    def test_the_answer_compared_with_itself_needs_no_person(self, data_folder: Path, tmp_path: Path) -> None:
        def pairwise(row: dict[str, Any]) -> None:
            row["compared_with"] = "strong"
            if row["model"] == "strong":
                row["score"] = 0.5
                row.pop("human_score", None)
                row.pop("human_drawn", None)
            else:
                row.update(score=row["score"] / 2)
                if "human_score" in row:
                    row["human_score"] /= 2

        data = change(write_graded(tmp_path / "pairs.jsonl", 1200), pairwise)
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.3, data=data))
        assert (found["about"], found["certified"]) == ("people", True)
        assert found["reference_quality"] == pytest.approx(0.5)


class TestJudge:
    def test_without_human_grades_the_certificate_says_that_it_is_about_the_judge(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "policy.yaml"
        data = write_graded(tmp_path / "judged.jsonl", 1500, people=0.0)
        done = run("tune", data_folder / "probe", data, *PAIR, *LIMIT, "--out", out)
        assert "Quality here is what the grader 'judge' says, and not what people would say" in done.stdout.replace(
            "\n", " "
        )
        assert load_policy(out).certificate.about == "judge judge"  # type: ignore[union-attr]

    def test_the_opinion_is_part_of_what_the_certificate_binds(self, data_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        data = write_graded(tmp_path / "bound.jsonl", 1500, people=0.0)
        answer_of(tune(data_folder, *PAIR, *LIMIT, "--out", out, data=data))
        out.write_text(out.read_text().replace("about: judge judge", "about: people"))
        with pytest.raises(ConfigError, match="one was edited since"):
            load_policy(out)

    def test_data_that_name_no_grader_are_called_scores(self, data_folder: Path) -> None:
        assert answer_of(tune(data_folder, *PAIR, *LIMIT))["about"] == "scores"


class TestBadGrades:
    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (
                lambda row: row.pop("human_drawn", None),
                "that chance chose for them (`human_drawn` says `random`); got 0 of",
            ),
            (
                lambda row: row.pop("human_score", None) if row["model"] == "strong" else None,
                "graded for every model; got 0 (graded answers: 'weak'",
            ),
            (lambda row: row.pop("human_score", None), "--about people needs human grades, the column `human_score`"),
            (
                lambda row: row.pop("human_score", None) if int(row["prompt_id"]) > 60 else None,
                "needs 30 prompts or more that people graded for every model; got",
            ),
            (
                lambda row: row.update(human_score=7) if row["prompt_id"] == "5" else None,
                "human_score must be a number, 0 to 1; lines 11, 12, the first is 7",
            ),
        ],
    )
    def test_grades_that_cannot_carry_a_certificate_are_refused(
        self, data_folder: Path, tmp_path: Path, edit: Any, words: str
    ) -> None:
        data = change(write_graded(tmp_path / "bad.jsonl", 800), edit)
        done = tune(data_folder, *PAIR, *LIMIT, "--about", "people", data=data)
        assert done.exit_code == 1
        assert words in done.stderr

    def test_grades_of_picked_answers_are_left_out_and_counted(self, data_folder: Path, tmp_path: Path) -> None:
        def pick(row: dict[str, Any]) -> None:
            if int(row["prompt_id"]) < 100:
                row.update(human_score=0.0, human_drawn="picked")

        data = change(write_graded(tmp_path / "picked.jsonl", 2000), pick)
        found = answer_of(tune(data_folder, *PAIR, *LIMIT, data=data))
        assert found["about"] == "people"
        assert any("100 prompts with human grades count as judged only" in note for note in found["notes"])

    def test_prompts_drawn_for_what_they_teach_do_not_certify(self, data_folder: Path, tmp_path: Path) -> None:
        def draw(row: dict[str, Any]) -> None:
            row["drawn"] = "informative" if int(row["prompt_id"]) % 2 else "random"

        data = change(write_graded(tmp_path / "drawn.jsonl", 1000, people=0.0), draw)
        found = answer_of(tune(data_folder, *PAIR, *LIMIT, data=data))
        assert (found["n_calibration"], found["n_informative"]) == (500, 500)
        whole = answer_of(run("tune", data_folder / "probe", "--calibration", data, *PAIR, *LIMIT, "--json"))
        assert (whole["n_calibration"], whole["n_informative"]) == (500, 500)

    def test_a_group_without_a_human_grade_is_named(self, data_folder: Path, tmp_path: Path) -> None:
        data = change(
            write_graded(tmp_path / "group.jsonl", 1500),
            lambda row: row.pop("human_score", None) if row["group"] == "g1" else None,
        )
        done = tune(data_folder, *PAIR, "--max-loss", 0.2, "--by", "group", data=data)
        assert "--by group needs a human grade in each group; 'g1' has none" in done.stderr


def draw_path(rng: np.random.Generator, n: int, people: int, kind: float) -> tuple[GradedLosses, Any]:
    """Return the losses of a path of thresholds under a kind judge, and the true losses of its policies."""
    thresholds = np.linspace(-0.2, 0.8, 21)[:, None]
    gain = rng.uniform(-0.2, 0.8, n)
    strong, weak = rng.random(n) < 0.9, rng.random(n) < 0.9 - gain.clip(0)
    seen = weak | (rng.random(n) < kind)
    routed = gain < thresholds
    human = routed * (strong * 1.0 - weak)
    human[:, people:] = np.nan
    edges = thresholds[:, 0].clip(0)
    return GradedLosses(human, routed * (strong * 1.0 - seen)), edges**2 / 2


@pytest.mark.parametrize("draws", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_certificates_about_people_keep_their_promise_under_a_kind_judge_and_those_of_the_judge_do_not(
    draws: int,
) -> None:
    rng = np.random.default_rng(3)
    wrong = {"people": 0, "judge": 0}
    certified = 0
    for _ in range(draws):
        losses, truth = draw_path(rng, n=1500, people=250, kind=0.3)
        passes = {"people": excludes(losses, 0.05, 0.05, RECTIFIED), "judge": excludes(losses.judged, 0.05, 0.05)}
        for name, tests in passes.items():
            passed = int(np.argmin(tests)) if not tests.all() else len(tests)
            certified += name == "people" and passed > 0
            wrong[name] += passed > 0 and bool(truth[passed - 1] > 0.05)
    assert certified > 0.9 * draws
    assert wrong["people"] <= stats.binom.ppf(0.999, draws, 0.05)
    assert wrong["judge"] > 0.5 * draws

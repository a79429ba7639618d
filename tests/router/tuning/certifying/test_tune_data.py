"""`elle tune` on odd data, group by group, and with a plan for more labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.artifacts import store as artifact
from probes.errors import DataError
from router.tuning.certifying.calibration_set import calibration_set
from router.tuning.outcomes.datasets import read_outcomes
from tests.router.tuning.certifying.tune_verb import PAIR, answer_of, run, tune
from tests.tuning_outcomes import MODELS, write_outcomes


class TestBadData:
    """Named errors with row numbers, and nothing written."""

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"score": 1.5}, "score must be a number, 0 to 1; line 801, the first is 1.5"),
            ({"score": float("nan")}, "score must be a number, 0 to 1; line 801, the first is nan"),
            ({"score": "half"}, "score must be a number, 0 to 1; line 801, the first is 'half'"),
            ({"score": None}, "score must be a number, 0 to 1; line 801"),
            ({"prompt": 7}, "line 801: prompt must be text, got a number"),
            ({"model": ""}, "model must not be empty, line 801"),
            ({"cost_usd": -1}, "cost_usd must be a number, 0 to 1e+12; line 801"),
        ],
    )
    def test_a_bad_row_is_named(self, data_folder: Path, tmp_path: Path, row: dict[str, object], message: str) -> None:
        data = write_outcomes(tmp_path / "bad.jsonl", 400, tag="bad")
        with data.open("a") as file:
            file.write(json.dumps({"prompt": "one more", "model": "weak", "score": 1} | row) + "\n")
        out = tmp_path / "policy.yaml"
        done = tune(data_folder, *PAIR, "--max-loss", 0.05, "--out", out, data=data)
        assert done.exit_code == 1
        assert message in done.stderr
        assert not out.exists()

    def test_a_model_without_scores_is_named(self, data_folder: Path, tmp_path: Path) -> None:
        data = write_outcomes(tmp_path / "one.jsonl", 200, tag="one", models=("weak", "other"))
        done = tune(data_folder, *PAIR, "--max-loss", 0.05, data=data)
        assert done.exit_code == 1
        assert "models must be among those of the data (other, weak), got strong" in done.stderr

    def test_models_that_share_no_prompt_cannot_be_compared(self, data_folder: Path, tmp_path: Path) -> None:
        rows = [{"prompt": f"{m} {i}", "model": m, "score": 1} for m in MODELS for i in range(100)]
        data = tmp_path / "apart.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = tune(data_folder, *PAIR, "--max-loss", 0.05, data=data)
        assert "some prompts must have a score of every model, none has (prompts scored: weak 100" in done.stderr

    def test_too_few_prompts_are_an_error_and_a_few_more_a_plain_no(self, data_folder: Path, tmp_path: Path) -> None:
        done = tune(data_folder, *PAIR, "--max-loss", 0.02, data=write_outcomes(tmp_path / "few.jsonl", 49, tag="few"))
        assert done.exit_code == 1
        assert "at least 50 different prompts that the probe was not fitted on must remain, got 49" in done.stderr
        found = answer_of(
            tune(data_folder, *PAIR, "--max-loss", 0.02, data=write_outcomes(tmp_path / "f.jsonl", 60, tag="f"))
        )
        assert not found["certified"]
        assert 50 < found["more_labels"] < 400

    def test_incomplete_prompts_are_counted_and_left_out(self, data_folder: Path, tmp_path: Path) -> None:
        data = write_outcomes(tmp_path / "gaps.jsonl", 300, tag="gaps")
        with data.open("a") as file:
            file.writelines(json.dumps({"prompt": f"gap {i}", "model": "weak", "score": 1}) + "\n" for i in range(7))
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.1, data=data))
        assert (found["n_calibration"], found["n_incomplete"]) == (300, 7)

    def test_the_order_of_the_file_does_not_matter(self, data_folder: Path, tmp_path: Path) -> None:
        graded = [
            {"prompt": f"g {i}", "model": m, "score": round((i * 7 % 11) / 10 * (0.9 if m == "weak" else 1), 3)}
            for i in range(300)
            for m in MODELS
        ]
        answers = []
        for name, rows in (("a", graded), ("b", sorted(graded, key=lambda row: -row["score"]))):  # type: ignore[operator]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            data = tmp_path / f"{name}.jsonl"
            answers.append(answer_of(tune(data_folder, *PAIR, "--max-loss", 0.2, "--bound", "betting", data=data)))
        assert answers[0]["targets"] == answers[1]["targets"]
        assert answers[0]["targets"][0]["method"] == "betting"

    def test_a_probe_that_does_not_know_its_prompts_is_refused(self, data_folder: Path) -> None:
        probe = replace(artifact.load(data_folder / "probe"), fitted_on=np.empty(0, dtype=np.uint64))
        with pytest.raises(DataError, match="must know which prompts it was fitted on"):
            calibration_set(read_outcomes(data_folder / "data.jsonl"), probe)


class TestGroupsAndPlans:
    def test_each_group_is_certified_from_its_own_prompts(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.05, "--by", "group"))
        assert found["groups"].keys() == {"g0", "g1"}
        assert sum(group["n"] for group in found["groups"].values()) == found["n_calibration"]
        for group in found["groups"].values():
            assert group["certified"]
            assert group["loss_upper_bound"] <= 0.05

    def test_the_plan_says_what_more_labels_would_buy(self, data_folder: Path) -> None:
        plan = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.03, "--plan"))["plan"]
        sizes = [point["n"] for point in plan["curve"]]
        assert sizes == sorted(sizes)
        assert [point["projected"] for point in plan["curve"]] == [False] * 4 + [True] * 3
        labels = [step["labels"] for step in plan["steps"] if step["labels"] is not None]
        assert labels == sorted(labels)
        assert plan["steps"][-1]["labels"] is None
        shown = run(
            "tune", data_folder / "probe", data_folder / "data.jsonl", *PAIR, "--max-loss", 0.03, "--plan"
        ).stdout
        assert "Labels that would certify" in shown

    def test_each_task_is_certified_from_its_own_prompts(self, data_folder: Path, tmp_path: Path) -> None:
        rows = [json.loads(line) for line in (data_folder / "data.jsonl").read_text("utf-8").splitlines()]
        data = tmp_path / "tasks.jsonl"
        data.write_text("".join(json.dumps(row | {"task": f"task {row['group']}"}) + "\n" for row in rows), "utf-8")
        by_task = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.05, "--by", "task", "--calibration", data))
        by_group = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.05, "--by", "group", "--calibration", data))
        assert by_task["groups"].keys() == {"task g0", "task g1"}
        assert by_task["groups"]["task g1"] == by_group["groups"]["g1"]
        refused = tune(data_folder, *PAIR, "--max-loss", 0.05, "--by", "task")
        assert "needs a column `task` in the data" in refused.stderr

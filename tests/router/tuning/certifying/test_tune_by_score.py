"""`elle tune --score` fits, certifies and writes a policy that decides by a number which requests carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from router.client import RouterClient
from router.deciding.pipeline import Router
from router.decision import Reason
from router.errors import ConfigError
from router.policies.loading import load_policy
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.gateways.loopback import in_thread
from tests.router.tuning.certifying.tune_verb import PAIR, answer_of, run

SCORE = ("--score", "confidence")
LIMIT = ("--max-loss", 0.08)


def draw(n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return scores and right answers of weak and strong: it is sure of itself, and right less often than it says."""
    score = rng.beta(5, 1, n)
    right = np.column_stack([rng.random(n) < score**3, rng.random(n) < 0.9])
    return np.round(score, 3), right


def write_scored(path: Path, n: int = 3000, seed: int = 0, scale: float = 1.0, **extra: object) -> Path:
    """Write n prompts; their scores are multiplied by `scale`."""
    scores, right = draw(n, np.random.default_rng(seed))
    rows = [
        {"prompt": f"{path.stem} {i}", "model": m, "score": float(right[i, j]), "confidence": scale * scores[i]} | extra
        for i in range(n)
        for j, m in enumerate(("weak", "strong"))
    ]
    return write_rows(path, rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def tune(*arguments: object) -> Any:
    return run("tune", *arguments, "--json")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a certified policy file, and what `elle tune` answered."""
    folder = tmp_path_factory.mktemp("score")
    out = folder / "tuned.yaml"
    data = write_scored(folder / "data.jsonl")
    answer = answer_of(tune(data, *PAIR, *LIMIT, *SCORE, "--profile", "bold=0.2", "--out", out))
    assert answer["certified"]
    policy = yaml.safe_load(out.read_text())
    for candidate in policy["candidates"]:  # where they are reached may be edited, and voids nothing
        candidate |= {"model": f"openai/{candidate['name']}", "api_base": "canned"}
    out.write_text(yaml.safe_dump(policy))
    return out, answer


class TestPolicy:
    def test_it_is_certified_on_rows_that_did_not_fit_its_maps(self, tuned: tuple[Path, dict[str, Any]]) -> None:
        out, answer = tuned
        assert 1950 < answer["n_calibration"] < 2250
        assert 0.1 < answer["weak_share"] < 0.9
        assert any("a higher confidence means a lower risk of weak" in note for note in answer["notes"])
        policy = load_policy(out)
        assert policy.probe is None
        assert policy.certificate is not None
        assert policy.certificate.probe == policy.probe_ref.digest  # type: ignore[union-attr]
        assert (policy.rules.file.score.low, policy.rules.file.score.high) == (0.0, 1.0)  # type: ignore[union-attr]
        assert (out.parent / "data.jsonl.tune-log.jsonl").exists()
        assert run("validate", out).exit_code == 0

    def test_an_edit_of_its_maps_voids_the_certificate(
        self, tuned: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        policy = yaml.safe_load(tuned[0].read_text())
        policy["score"]["low"] = -0.5
        edited = tmp_path / "edited.yaml"
        edited.write_text(yaml.safe_dump(policy))
        with pytest.raises(ConfigError, match="must be for the policy's probe or score"):
            load_policy(edited)
        policy = yaml.safe_load(tuned[0].read_text())
        policy["rule"]["thresholds"] = [0.9]
        edited.write_text(yaml.safe_dump(policy))
        with pytest.raises(ConfigError, match="must be for the rule as it is"):
            load_policy(edited)

    def test_it_keeps_its_promise_on_fresh_requests(self, tuned: tuple[Path, dict[str, Any]]) -> None:
        router = Router.from_files(tuned[0])
        scores, right = draw(20_000, np.random.default_rng(99))
        chosen = [router.decide(RouteQuery.from_prompt("x", scores={"confidence": s})).chosen == "weak" for s in scores]
        loss = np.where(chosen, right[:, 1] * 1.0 - right[:, 0], 0.0).mean()
        assert loss < 0.08 + 0.01
        assert abs(np.mean(chosen) - tuned[1]["weak_share"]) < 0.05

    def test_evaluate_reads_the_same_column(self, tuned: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        data = write_scored(tmp_path / "newer.jsonl", seed=5)
        done = run("evaluate", "--policy", tuned[0], data, "--json", "--resamples", 100)
        assert done.exit_code == 0, done.output
        own = json.loads(done.stdout)["rules"][0]
        assert own["shares"]["weak"] == pytest.approx(tuned[1]["weak_share"], abs=0.06)
        rows = [
            {k: v for k, v in json.loads(line).items() if k != "confidence"} for line in data.read_text().splitlines()
        ]
        done = run("evaluate", "--policy", tuned[0], write_rows(tmp_path / "none.jsonl", rows), "--json")
        assert "must have the column 'confidence' of scores" in done.stderr

    def test_it_is_served_alike(self, tuned: tuple[Path, dict[str, Any]]) -> None:
        engine = Router.from_files(tuned[0])
        settings = ServerSettings(policies=(tuned[0],), port=0, drain_s=1)
        with in_thread(serving(settings)) as running, RouterClient(running.address) as client:
            queries = [RouteQuery.from_prompt("x", scores={"confidence": s}) for s in np.linspace(-0.1, 1.1, 25)]
            here = [engine.decide(query) for query in queries]
            batch = client.route_batch(queries)
            assert {one.chosen for one in here} == {"weak", "strong"}
            assert [one.chosen for one in batch] == [one.chosen for one in here]  # type: ignore[union-attr]
            for query, one in zip(queries, here, strict=True):
                found = client.route(query)
                assert (found.chosen, found.candidates, found.score) == (one.chosen, one.candidates, one.score)
            missing = client.route("x")
            assert (missing.chosen, missing.reason) == ("strong", Reason.ABSTAINED)
            assert missing.score is not None
            assert missing.score.fault == "missing"


class TestData:
    def test_a_falling_score_and_another_range_are_found(self, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        data = write_scored(tmp_path / "negative.jsonl", scale=-7.0)
        answer = answer_of(tune(data, *PAIR, *LIMIT, *SCORE, "--out", out))
        assert any("a higher confidence means a higher risk of weak" in note for note in answer["notes"])
        score = load_policy(out).rules.file.score
        assert score is not None
        assert -7.0 <= score.low < score.high < 0.0
        assert score.risks[0].risks[0] < score.risks[0].risks[-1]

    def test_a_separate_file_certifies_whole_and_people_are_heard(self, tmp_path: Path) -> None:
        data = write_scored(tmp_path / "data.jsonl", 1000)
        own = write_scored(tmp_path / "own.jsonl", 1500, seed=1, grader="judge")
        rows = [json.loads(line) for line in own.read_text().splitlines()]
        for row in rows:
            if int(row["prompt"].split()[-1]) % 2:
                row |= {"human_score": row["score"], "human_drawn": "random"}
        write_rows(own, rows)
        answer = answer_of(tune(data, *PAIR, *LIMIT, *SCORE, "--calibration", own))
        assert (answer["certified"], answer["about"]) == (True, "people")
        assert (answer["n_calibration"], answer["n_human"]) == (1500, 750)

    def test_requests_without_a_score_go_to_the_reference(self, tmp_path: Path) -> None:
        data = write_scored(tmp_path / "gaps.jsonl")
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        for row in rows:
            if int(row["prompt"].split()[-1]) % 2:
                row["confidence"] = None
        answer = answer_of(tune(write_rows(data, rows), *PAIR, *LIMIT, *SCORE))
        assert answer["abstained_share"] == pytest.approx(0.5, abs=0.04)
        assert answer["weak_share"] <= 0.55

    @pytest.mark.parametrize(
        ("change", "arguments", "words"),
        [
            ({"confidence": 0.5}, SCORE, "the score confidence must differ between prompts; it is 0.5 for all of them"),
            ({"confidence": "high"}, SCORE, "confidence must be a number; lines 1, 2, 3, 4, 5 and"),
            ({"confidence": None}, SCORE, "must be known for 50 prompts or more"),
            ({}, ("--score", "confidense"), "column 'confidense' of scores, found confidence, model, prompt, score"),
            ({}, ("--score", "confidense"), "Did you mean 'confidence'?"),
            ({"my score": 1}, ("--score", "my score"), "--score must name a column by letters, digits"),
            ({"prompt": "the same"}, SCORE, "must have a prompt_id each if their scores differ"),
            ({"prompt_id": "one", "prompt": "the same"}, SCORE, "all rows of one prompt must have the same score"),
        ],
    )
    def test_what_cannot_be_used_is_named(
        self, tmp_path: Path, change: dict[str, Any], arguments: tuple[str, str], words: str
    ) -> None:
        out = tmp_path / "policy.yaml"
        done = tune(write_scored(tmp_path / "bad.jsonl", 400, **change), *PAIR, *LIMIT, *arguments, "--out", out)
        assert done.exit_code == 1
        assert words in done.stderr
        assert not out.exists()

    def test_a_probe_has_no_place_beside_a_score(self, tmp_path: Path) -> None:
        (tmp_path / "probe").mkdir()
        done = tune(tmp_path / "probe", write_scored(tmp_path / "data.jsonl", 100), *PAIR, *LIMIT, *SCORE)
        assert done.exit_code == 2
        assert "with --score give files of outcomes only, got the folder" in done.stderr

"""`elle fit --add`: a model joins a probe, the others stay to the bit, and nothing is written if something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from probes.artifacts import store as artifact
from router.cli.main import cli
from router.policies.loading import load_policy
from tests.fakes import FakeEncoder
from tests.router.cli.test_label_task import contents, fake_encoder, said, write
from tests.tuning_outcomes import chances, features, write_outcomes


@pytest.fixture(autouse=True)
def _fake_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_encoder(monkeypatch, tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a probe of the models weak and strong, which keeps its statistics and knows eight tasks."""
    folder = tmp_path_factory.mktemp("old")
    data = write_outcomes(folder / "outcomes.jsonl", 240)
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    for row in rows:
        number = int(row["prompt"].split()[-1]) % 8
        # No model is right in two of the tasks, so tasks differ.
        row |= {"task": f"task {number}", "score": 0.0 if number < 2 else row["score"]}
    write(data, rows)
    with pytest.MonkeyPatch.context() as patch:
        fake_encoder(patch, folder)
        said(run("fit", data, "--out", folder / "probe", "--keep-statistics", "--json"))
    return folder / "probe"


def new_labels(path: Path, n: int = 50, *, tag: str = "new", model: str = "fresh", seed: int = 3) -> Path:
    """Return labels of a model that is as often right as the weak one of `chances`, less a tenth."""
    texts = [f"{tag} prompt {i}" for i in range(n)]
    right = np.random.default_rng(seed).random(n) < 0.9 * chances(features(texts))[:, 0]
    return write(path, [{"prompt": t, "model": model, "score": float(r)} for t, r in zip(texts, right, strict=True)])


def test_the_other_models_stay_to_the_bit_and_the_new_one_is_calibrated(probe: Path, tmp_path: Path) -> None:
    labels, out = new_labels(tmp_path / "labels.jsonl"), tmp_path / "new"
    before = contents(probe)
    answer = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", out, "--json"))
    assert contents(probe) == before
    old, new = artifact.load(probe), artifact.load(out)
    assert new.models == (*old.models, "fresh")
    assert answer["models"] == list(new.models)
    assert new.linear.coef[:2].tobytes() == old.linear.coef.tobytes()
    assert new.linear.intercept[:2].tobytes() == old.linear.intercept.tobytes()
    for mine, theirs in zip(old.calibrators, new.calibrators, strict=False):
        assert {k: v.tobytes() for k, v in mine.state().items()} == {k: v.tobytes() for k, v in theirs.state().items()}
    X = np.stack([FakeEncoder().encode(f"other {i}") for i in range(300)])
    tasks = [f"task {i % 9}" for i in range(300)]
    for keys in (None, tasks):
        mine, theirs = old.predict(X, keys), new.predict(X, keys)
        assert mine.loss.tobytes() == np.ascontiguousarray(theirs.loss[:, :2]).tobytes()
        assert mine.risk.tobytes() == np.ascontiguousarray(theirs.risk[:, :2]).tobytes()
        assert mine.leverage.tobytes() == theirs.leverage.tobytes()
        assert mine.unfamiliar.tolist() == theirs.unfamiliar.tolist()
    one = new.predict_one(X[0], "task 3")
    assert one.risk[:2] == old.predict_one(X[0], "task 3").risk
    truth = 1 - 0.9 * chances(X)[:, 0]
    assert np.corrcoef(new.predict(X).risk[:, 2], truth)[0, 1] > 0.7
    assert abs(new.predict(X).risk[:, 2].mean() - truth.mean()) < 0.15


def test_identity_card_and_answer_say_what_was_added(probe: Path, tmp_path: Path) -> None:
    labels, out = new_labels(tmp_path / "labels.jsonl"), tmp_path / "new"
    answer = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", out, "--name", "three", "--json"))
    old, new = artifact.load(probe), artifact.load(out)
    assert answer["identity"] == new.identity != old.identity
    assert answer["added"]["old_identity"] == old.identity
    assert answer["added"]["n_labels"] == answer["figures"]["n"] == 50
    assert answer["added"]["way"].startswith("shared")
    assert new.card.title == "three"
    assert "fresh was added to the probe 'probe'" in new.card.summary
    assert "fresh was added" in (out / "README.md").read_text("utf-8")
    assert new.card.n_samples == {**old.card.n_samples, "fresh": 50}
    assert [source.name for source in new.card.data] == ["outcomes.jsonl", "labels.jsonl"]
    assert new.card.metrics["models"] == old.card.metrics["models"]
    assert new.card.metrics["added"]["fresh"]["brier"] == answer["figures"]["brier"]  # type: ignore[index]
    assert set(old.fitted_on.tolist()) < set(new.fitted_on.tolist())
    assert any("sums of the old fit" in note for note in answer["notes"])
    assert "Tune policies" in run("fit", "--add", "fresh", labels, "--prior", probe, "--out", out, "--force").output


def test_a_task_moves_the_new_model_as_it_moves_the_others(probe: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    labels = new_labels(tmp_path / "labels.jsonl")
    slope = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", out, "--json"))["added"]["slope"]
    offset = artifact.load(out).offset_of("task 3")
    assert offset is not None
    assert offset[2] == pytest.approx(slope * offset[:2].mean(), abs=1e-6)
    mail = write(tmp_path / "mail.jsonl", [{"prompt": f"mail {i}", "model": "fresh", "score": 0} for i in range(4)])
    change = said(run("label-task", out, "mail", mail, "--out", tmp_path / "newer", "--json"))["models"]
    assert change["fresh"]["offset"] > 0


def test_models_are_added_one_after_the_other(probe: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for name, prior, out in (("one", probe, first), ("two", first, second)):
        labels = new_labels(tmp_path / f"{name}.jsonl", tag=name, model=name)
        said(run("fit", "--add", name, labels, "--prior", prior, "--out", out, "--json"))
    assert artifact.load(second).models == (*artifact.load(probe).models, "one", "two")
    assert set(artifact.load(second).card.metrics["added"]) == {"one", "two"}  # type: ignore[call-overload]
    X = np.stack([FakeEncoder().encode(f"other {i}") for i in range(50)])
    earlier, later = artifact.load(first).predict(X), artifact.load(second).predict(X)
    assert earlier.risk.tobytes() == np.ascontiguousarray(later.risk[:, :3]).tobytes()


def test_a_policy_is_tuned_with_the_new_candidate_and_serves(probe: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    said(run("fit", "--add", "fresh", new_labels(tmp_path / "l.jsonl"), "--prior", probe, "--out", out, "--json"))
    data = write_outcomes(tmp_path / "calibration.jsonl", 900, tag="later", seed=5, models=("fresh", "strong"))
    tuned = run(
        "tune", out, "--calibration", data, "--weak", "fresh", "--strong", "strong", "--max-loss", "0.2",
        "--out", tmp_path / "policy.yaml",
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    policy = load_policy(tmp_path / "policy.yaml")
    assert {one.name for one in policy.rules.file.candidates} == {"fresh", "strong"}


def label(i: int, score: object = 1.0, model: str = "fresh") -> dict[str, Any]:
    return {"prompt": f"p {i}", "model": model, "score": score}


@pytest.mark.parametrize(
    ("rows", "name", "said_is"),
    [
        ([label(0)], "fresh", "at least 10 labels"),
        ([label(0) | {"prompt_id": f"{i}"} for i in range(30)], "fresh", "of 1"),
        ([label(i) for i in range(30)], "weak", "has the model 'weak' already"),
        ([label(i, model="other") for i in range(30)], "fresh", "they are of 'other'"),
        ([label(i, model=f"m{i}") for i in range(30)], "fresh", "and 25 more"),
        ([label(i, "NaN") for i in range(30)], "fresh", "score"),
        ([label(i, 7) for i in range(30)], "fresh", "score"),
        ([label(i) for i in range(30)], "x" * 10_000_000, "1 to 256 printable characters"),
        ([label(i) for i in range(30)], "a\nb", "1 to 256 printable characters"),
        ([label(i) for i in range(30)], "  ", "1 to 256 printable characters"),
    ],
)
def test_bad_labels_are_refused_and_nothing_is_lost(
    probe: Path, tmp_path: Path, rows: list[dict[str, Any]], name: str, said_is: str
) -> None:
    labels, out, before = write(tmp_path / "labels.jsonl", rows), tmp_path / "new", contents(probe)
    result = run("fit", "--add", name, labels, "--prior", probe, "--out", out)
    assert result.exit_code != 0
    assert said_is in result.output
    assert len(result.output) < 1000
    assert not out.exists()
    assert contents(probe) == before


@pytest.mark.parametrize(
    ("options", "said_is"),
    [
        (("--models", "fresh"), "--models must not be given"),
        (("--holdout", "0.4"), "--holdout must not be given"),
        (("--keep-statistics", "--models", "a"), "--models and --keep-statistics must not be given"),
        (("--kind-names", "names.yaml"), "--kind-names must not be given"),
        (("--encoder", "minilm-l6-2.5"), "encoder"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    probe: Path, tmp_path: Path, options: tuple[str, ...], said_is: str
) -> None:
    labels, out = new_labels(tmp_path / "labels.jsonl"), tmp_path / "new"
    result = run("fit", "--add", "fresh", labels, "--prior", probe, "--out", out, *options)
    assert result.exit_code != 0
    assert said_is in result.output
    assert not out.exists()


def test_a_prior_is_needed_and_an_old_probe_is_not_replaced_silently(probe: Path, tmp_path: Path) -> None:
    labels = new_labels(tmp_path / "labels.jsonl")
    assert "--prior" in run("fit", "--add", "fresh", labels, "--out", tmp_path / "new").output
    before = contents(probe)
    assert "--force" in run("fit", "--add", "fresh", labels, "--prior", probe, "--out", probe).output
    assert contents(probe) == before


def test_labels_unlike_the_fit_are_noted(probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, usual = new_labels(tmp_path / "labels.jsonl", tag="far"), FakeEncoder._features
    monkeypatch.setattr(FakeEncoder, "_features", lambda self, text: 100 * usual(self, text))
    answer = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", tmp_path / "new", "--json"))
    assert any(note.startswith("50 of 50 labelled prompts are unlike") for note in answer["notes"])


def test_contradicting_labels_all_count_and_are_noted(probe: Path, tmp_path: Path) -> None:
    rows = [label(i % 15, float(i < 15)) | {"prompt_id": str(i)} for i in range(30)]
    labels = write(tmp_path / "labels.jsonl", [*rows, label(99, model="other") | {"prompt_id": "99"}])
    answer = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", tmp_path / "new", "--json"))
    assert answer["figures"]["mean_score"] == 0.5
    assert any(note.startswith("15 prompts have labels that contradict") for note in answer["notes"])
    assert any("'other' are left out" in note for note in answer["notes"])


def test_equal_labels_give_a_constant_that_is_not_certain(probe: Path, tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.jsonl", [label(i) for i in range(50)])
    answer = said(run("fit", "--add", "fresh", labels, "--prior", probe, "--out", tmp_path / "new", "--json"))
    assert answer["added"]["way"] == "mean"
    assert any("nothing tells its prompts apart" in note for note in answer["notes"])
    X = np.stack([FakeEncoder().encode(f"other {i}") for i in range(20)])
    risk = artifact.load(tmp_path / "new").predict(X).risk[:, 2]
    assert (risk > 0.001).all()
    assert (risk < 0.1).all()

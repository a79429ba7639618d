"""`elle label-task`: exact, never silent, and nothing is written if something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from probes.artifacts import store as artifact
from probes.encoders.spec import EncoderSpec
from router.cli.main import cli
from router.tuning.outcomes import feature_cache as features
from tests.fakes import FakeEncoder


def fake_encoder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Replace the forward pass at the seam where encoders are loaded, and keep its features in a folder."""
    loaded = FakeEncoder()

    def load(spec: EncoderSpec, directory: Path | None = None) -> FakeEncoder:
        monkeypatch.setattr(loaded, "_spec", spec)
        return loaded

    monkeypatch.setattr(features, "load_encoder", load)
    monkeypatch.setenv("ELLE_CACHE_DIR", str(folder / "cache"))


@pytest.fixture(autouse=True)
def _fake_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_encoder(monkeypatch, tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with outcomes of eight tasks, and a probe of two models on them that keeps its statistics."""
    folder = tmp_path_factory.mktemp("fitted")
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"prompt {i}", "task": f"task {i % 8}", "model": model, "score": float(rng.random() < good)}
        for i in range(160)
        for model, good in (("small", 0.1 + 0.8 * (i % 8 < 4)), ("large", 0.9))
    ]
    data = write(folder / "outcomes.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        fake_encoder(patch, folder)
        assert said(run("fit", data, "--out", folder / "probe", "--keep-statistics", "--json"))["notes"] == []
    return folder


@pytest.fixture
def probe(fitted: Path, tmp_path: Path) -> Path:
    """Return a copy of that probe."""
    shutil.copytree(fitted / "probe", tmp_path / "probe")
    return tmp_path / "probe"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write(
        tmp_path / "labels.jsonl",
        [{"prompt": f"mail {i}", "model": m, "score": s} for i in range(3) for m, s in (("small", 0), ("large", 1))],
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_labels_make_a_new_version_and_withdrawing_them_gives_the_old_one(probe: Path, labels: Path) -> None:
    before, old = contents(probe), artifact.load(probe)
    found = said(run("label-task", probe, "mail", labels, "--out", probe.parent / "new", "--json"))
    assert contents(probe) == before
    assert (found["is_new"], found["n_tasks"], found["old_identity"]) == (True, 9, old.identity)
    assert found["models"]["small"]["labels"] == 3
    assert found["models"]["small"]["offset"] > 0.1 > found["models"]["large"]["offset"]
    new = artifact.load(probe.parent / "new")
    assert new.identity == found["identity"] != old.identity
    assert new.linear.coef.tobytes() == old.linear.coef.tobytes()
    assert artifact.load_prior(probe.parent / "new").n_targets == 2
    assert old.fitted_on.size + 3 == new.fitted_on.size
    back = said(
        run("label-task", probe.parent / "new", "mail", labels, "--withdraw", "--out", probe.parent / "back", "--json")
    )
    assert (back["is_forgotten"], back["identity"]) == (True, old.identity)


def test_one_label_after_another_is_the_same_as_all_at_once(probe: Path, labels: Path, tmp_path: Path) -> None:
    at_once = said(run("label-task", probe, "mail", labels, "--out", tmp_path / "all", "--json"))
    place = probe
    for number, line in enumerate(reversed(labels.read_text("utf-8").splitlines())):
        one = write(tmp_path / f"{number}.jsonl", [json.loads(line)])
        found = said(run("label-task", place, "mail", one, "--out", tmp_path / f"step{number}", "--json"))
        assert sum(model["labels"] for model in found["models"].values()) == number + 1
        place = tmp_path / f"step{number}"
    assert found["identity"] == at_once["identity"]


def test_in_place_only_with_force(probe: Path, labels: Path) -> None:
    before = contents(probe)
    refused = run("label-task", probe, "mail", labels)
    assert refused.exit_code == 1
    assert "give --force" in refused.stderr
    assert contents(probe) == before
    told = run("label-task", probe, "mail", labels, "--force")
    assert told.exit_code == 0
    assert "Task mail is new; the probe knows 9 tasks now." in told.stdout
    assert "small: 0 -> 3 labels" in told.stdout
    assert artifact.load(probe).tasks is not None
    assert "mail" in artifact.load(probe).tasks  # type: ignore[operator]


def test_labels_that_contradict_and_models_that_are_unknown_are_told(probe: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "mail", "model": "small", "score": score} for score in (0, 1, 1)]
    rows.append({"prompt": "mail", "model": "huge", "score": 1})
    found = said(run("label-task", probe, "mail", write(tmp_path / "l.jsonl", rows), "--out", tmp_path / "n", "--json"))
    assert found["models"]["small"]["labels"] == 3
    assert found["notes"] == [
        "huge is no model of the probe, and its labels are left out",
        "1 prompts have labels of one model that contradict each other; all of them count",
    ]


@pytest.mark.parametrize(
    ("task", "row", "more", "message"),
    [
        ("x" * 10_000_000, {}, (), "TASK must be at most 256 bytes long"),
        ("two\nlines", {}, (), "TASK must consist of printable characters"),
        ("mail", {"model": "huge"}, (), "LABELS must be of models of the probe (large, small), got only huge"),
        ("mail", {"task": "code"}, (), "the column task names 1 other task"),
        ("mail", {}, ("--withdraw",), "does not know this"),
        ("task 1", {"prompt": "never added"}, ("--withdraw",), None),
        ("mail", {"score": 2}, (), "score must be a number, 0 to 1"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    probe: Path, tmp_path: Path, task: str, row: dict[str, Any], more: tuple[str, ...], message: str | None
) -> None:
    rows = [{"prompt": "mail", "model": "small", "score": 1} | row] * (40 if message is None else 1)
    before, data = contents(probe), write(tmp_path / "l.jsonl", rows)
    done = run("label-task", probe, task, data, *more, "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert (message or "more labels are to be withdrawn than the task has") in done.stderr
    assert len(done.stderr) < 500
    assert not (tmp_path / "new").exists()
    assert contents(probe) == before


def test_a_probe_without_tasks_says_how_to_get_them(fitted: Path, labels: Path, tmp_path: Path) -> None:
    rows = [{**json.loads(line), "task": None} for line in (fitted / "outcomes.jsonl").read_text("utf-8").splitlines()]
    run("fit", write(tmp_path / "plain.jsonl", rows), "--out", tmp_path / "plain")
    done = run("label-task", tmp_path / "plain", "mail", labels, "--out", tmp_path / "new")
    assert "fitted without tasks; fit it with `elle fit`" in done.stderr
    assert done.exit_code == 1
    assert not (tmp_path / "new").exists()


def test_a_signature_does_not_pass_to_the_new_version(probe: Path, labels: Path, tmp_path: Path) -> None:
    artifact.sign(probe, bytes(range(32)))
    signed = tmp_path / "signed"
    shutil.copytree(probe, signed)
    found = said(run("label-task", signed, "mail", labels, "--force", "--json"))
    assert "the new version is not signed; sign it again" in found["notes"]
    assert not (signed / "probe.sig").exists()
    artifact.load(signed)

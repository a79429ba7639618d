"""`elle forget`: what is left is a fit without the rows, and what cannot be removed is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.artifacts import store as artifact
from probes.regression.fit import fit_ridge
from probes.regression.prior import Prior
from tests.router.cli.test_label_task import contents, run, said, write
from tests.tuning_outcomes import features, write_outcomes


@pytest.fixture(scope="module")
def fitted(fake_features: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a probe on `data.jsonl`, whose strong model misses some prompts."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = read(write_outcomes(folder / "data.jsonl", 150))
    kept = [row | {"prompt_id": row["prompt"]} for row in rows if row["model"] == "weak" or "7" not in row["prompt"]]
    # Two people asked the same.
    kept += [row | {"prompt_id": f"again {row['prompt']}"} for row in kept if row["prompt"] == "prompt number 3"]
    write(folder / "data.jsonl", kept)
    said(run("fit", folder / "data.jsonl", "--keep-statistics", "--out", folder / "probe", "--json"))
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def of_person(folder: Path, path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write the rows of a person who asked every prompt that ends in 3 once, and return the rows of all others too."""
    rows = read(folder / "data.jsonl")
    mine = [row["prompt_id"].startswith("prompt") and row["prompt"].endswith("3") for row in rows]
    write(path, [row for row, own in zip(rows, mine, strict=True) if own])
    return path, [row for row, own in zip(rows, mine, strict=True) if not own]


def statistics_of(rows: list[dict[str, Any]]) -> tuple[Prior, np.ndarray, np.ndarray]:
    """Return the statistics of a fit on rows, with the features and losses that they are of."""
    ids = sorted({row["prompt_id"] for row in rows})
    losses = np.full((len(ids), 2), np.nan)
    texts = {row["prompt_id"]: row["prompt"] for row in rows}
    for row in rows:
        losses[ids.index(row["prompt_id"]), ("strong", "weak").index(row["model"])] = 1 - row["score"]
    X = features([texts[one] for one in ids])
    return Prior.of(X, losses), X, losses


def test_what_is_left_is_a_fit_without_the_rows(fitted: Path, tmp_path: Path) -> None:
    labels, others = of_person(fitted, tmp_path / "person.jsonl")
    before = contents(fitted / "probe")
    answer = said(run("forget", fitted / "probe", labels, "--out", tmp_path / "new", "--json"))
    assert contents(fitted / "probe") == before
    old, new = artifact.load(fitted / "probe"), artifact.load(tmp_path / "new")
    expected, X, losses = statistics_of(others)
    found = artifact.load_prior(tmp_path / "new")
    assert found.n_labels.tolist() == expected.n_labels.tolist() == list(answer["left"].values())
    np.testing.assert_allclose(found.target_mean, expected.target_mean, atol=1e-8)
    for name in ("mean", "gram"):
        np.testing.assert_allclose(getattr(found.everything, name), getattr(expected.everything, name), atol=1e-8)
    np.testing.assert_allclose(found.solve(old.linear.alpha).coef, expected.solve(old.linear.alpha).coef, atol=1e-8)
    np.testing.assert_allclose(new.linear.coef, fit_ridge(X, losses, alphas=old.linear.alpha[:1]).probe.coef, atol=1e-7)
    assert (answer["old_identity"], answer["identity"]) == (old.identity, new.identity)
    assert (answer["n_prompts"], answer["n_left"]) == (15, 136)
    assert sum("calibration maps are kept" in one for one in answer["kept"]) == 1
    # The same text is still there from the other person, so no certificate may rest on it.
    assert new.fitted_on.size == old.fitted_on.size - 15
    assert len(set(old.fitted_on.tolist()) - set(new.fitted_on.tolist())) == 14
    assert new.card.metrics["forgotten"] == 15


def test_labels_that_were_merged_later_can_be_forgotten(fitted: Path, tmp_path: Path) -> None:
    later = write_outcomes(tmp_path / "later.jsonl", 60, tag="later")
    said(run("recalibrate", fitted / "probe", later, "--holdout", 0, "--out", tmp_path / "n", "--json"))
    said(run("forget", tmp_path / "n" / "probe", later, "--out", tmp_path / "back", "--json"))
    back, old = artifact.load_prior(tmp_path / "back"), artifact.load_prior(fitted / "probe")
    np.testing.assert_allclose(back.everything.gram, old.everything.gram, atol=1e-8)
    assert artifact.load(tmp_path / "back").fitted_on.tolist() == artifact.load(fitted / "probe").fitted_on.tolist()
    np.testing.assert_allclose(
        artifact.load(tmp_path / "back").linear.coef, artifact.load(fitted / "probe").linear.coef, atol=1e-6
    )


@pytest.mark.usefixtures("fake_features")
def test_tasks_of_the_rows_are_dropped_whole(tmp_path: Path) -> None:
    rows = read(write_outcomes(tmp_path / "d.jsonl", 120))
    rows = [row | {"task": f"task {int(row['prompt'].split()[-1]) % 6}"} for row in rows]
    said(run("fit", write(tmp_path / "d.jsonl", rows), "--keep-statistics", "--out", tmp_path / "p", "--json"))
    mine = write(tmp_path / "mine.jsonl", [row for row in rows if row["prompt"].endswith(" 6")])
    answer = said(run("forget", tmp_path / "p", mine, "--out", tmp_path / "n", "--json"))
    assert answer["tasks"] == ["task 0"]
    tasks = artifact.load(tmp_path / "n").tasks
    assert tasks is not None
    assert tasks.keys == tuple(f"task {i}" for i in range(1, 6))
    nameless = write(tmp_path / "nameless.jsonl", [{k: v for k, v in row.items() if k != "task"} for row in read(mine)])
    assert "name no task" in run("forget", tmp_path / "p", nameless, "--out", tmp_path / "m").output


def test_rows_that_the_fit_never_saw_are_refused_or_skipped(fitted: Path, tmp_path: Path) -> None:
    labels, _ = of_person(fitted, tmp_path / "person.jsonl")
    write(labels, [*read(labels), {"prompt": "never seen", "prompt_id": "x", "model": "weak", "score": 1}])
    refused = run("forget", fitted / "probe", labels, "--out", tmp_path / "new")
    assert refused.exit_code == 1
    assert "it never saw the text of 1 of 16 prompts" in refused.output
    assert "never seen" not in refused.output
    assert not (tmp_path / "new").exists()
    told = run("forget", fitted / "probe", labels, "--skip-unknown", "--out", tmp_path / "new")
    assert told.exit_code == 0, told.output
    assert "Removed 15 prompts; the statistics hold 136." in told.output
    assert "Note: 1 prompts are skipped" in told.output
    assert "Not removed: the calibration maps are kept" in told.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [{"prompt": "never seen", "prompt_id": "x", "model": "weak", "score": 1}],
            "it never saw the text of 1 of 1 ",
        ),
        (lambda rows: [row | {"model": "huge"} for row in rows], "LABELS must be of models of the probe"),
        (lambda rows: [row | {"score": 0.5} for row in rows], "no scores from 0 to 1 of"),
        (lambda rows: rows + [row | {"prompt_id": f"{row['prompt_id']}!"} for row in rows], "as often as the fit had"),
    ],
)
def test_nothing_is_written_if_something_is_wrong(change: Any, message: str, fitted: Path, tmp_path: Path) -> None:
    labels, _ = of_person(fitted, tmp_path / "person.jsonl")
    write(labels, change(read(labels)))
    refused = run("forget", fitted / "probe", labels, "--out", tmp_path / "new")
    assert refused.exit_code == 1
    assert message in refused.output
    assert not (tmp_path / "new").exists()


def test_a_fit_is_not_forgotten_whole(fitted: Path, tmp_path: Path) -> None:
    refused = run("forget", fitted / "probe", fitted / "data.jsonl", "--out", tmp_path / "new")
    assert "at least 5 labels of each model must be left; strong would have 0" in refused.output

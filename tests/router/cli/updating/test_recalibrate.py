"""`elle recalibrate`: labels are merged exactly, the policy is certified again, and nothing old is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from probes.artifacts import store as artifact
from probes.regression.fit import fit_ridge
from router.cli.output import NOT_CERTIFIED
from router.policies.loading import load_policy
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.holdout import Holdout, rows_to_fit
from tests.router.cli.test_label_task import contents, run, said, write
from tests.tuning_outcomes import features, write_outcomes


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def renewed(served: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder that `elle recalibrate` wrote, and what it said; the old probe and policy must not change."""
    before = contents(served / "probe"), (served / "policy.yaml").read_bytes()
    out = tmp_path_factory.mktemp("renewed") / "new"
    policy = ("--policy", served / "policy.yaml")
    answer = said(run("recalibrate", served / "probe", served / "later.jsonl", *policy, "--out", out, "--json"))
    assert (contents(served / "probe"), (served / "policy.yaml").read_bytes()) == before
    return out, answer


def test_the_new_probe_is_a_fit_of_old_and_new_rows_with_the_old_penalty(
    served: Path, renewed: tuple[Path, dict[str, Any]]
) -> None:
    out, answer = renewed
    old, new = artifact.load(served / "probe"), artifact.load(out / "probe")
    split = Holdout.of_card(old.card)
    assert split is not None
    fitted, later = read_outcomes(served / "data.jsonl"), read_outcomes(served / "later.jsonl")
    fitted = fitted.take(np.flatnonzero(rows_to_fit(fitted, split.rows(fitted))))
    aside = Holdout.of_card(new.card)
    assert aside is not None
    assert aside.is_of(later)
    merged = later.take(np.flatnonzero(rows_to_fit(later, aside.rows(later))))
    X, Y = features([*fitted.texts, *merged.texts]), 1.0 - np.concatenate([fitted.scores, merged.scores])
    expected = fit_ridge(X, Y, alphas=old.linear.alpha[:1])
    np.testing.assert_allclose(new.linear.coef, expected.coef, atol=1e-6)
    np.testing.assert_allclose(new.linear.intercept, expected.intercept, atol=1e-6)
    assert new.fitted_on.size == len(fitted) + len(merged)
    assert artifact.load_prior(out / "probe").n_labels.tolist() == [new.fitted_on.size] * 2
    assert answer["n_merged"] == len(merged)
    assert answer["n_merged"] + answer["n_set_aside"] == 900


def test_the_answer_says_what_changed(renewed: tuple[Path, dict[str, Any]]) -> None:
    out, answer = renewed
    for name in ("weak", "strong"):
        model = answer["models"][name]
        assert (model["calibration"], model["labels_merged"]) == ("fitted", answer["n_merged"])
        assert abs(model["mean_risk_after"] - model["mean_loss"]) < 0.05
        assert 0 <= model["ece_after"] < 0.1
    decisions = answer["decisions"]
    assert decisions["n"] == 900
    assert decisions["changed"] == decisions["cheaper"] + decisions["stronger"]
    assert decisions["by_new_rule"]
    assert sum(decisions["shares_after"].values()) == pytest.approx(1)
    assert [(row["profile"], row["kind"], row["limit"]) for row in answer["certificate"]] == [
        ("", "max_loss", 0.2),
        ("thrifty", "max_loss", 0.25),
    ]
    for row in answer["certificate"]:
        assert row["after"]["certified"]
        assert row["after"]["bound"] <= row["limit"]
        assert row["after"]["n"] == answer["n_set_aside"]
    card = artifact.load(out / "probe").card
    assert card.metrics["recalibrated"]["old_identity"] == answer["old_identity"]  # type: ignore[index]
    assert [source.name for source in card.data] == ["data.jsonl", "later.jsonl"]
    assert "merged into the probe" in (out / "probe" / "README.md").read_text("utf-8")


def test_the_new_policy_can_be_served_under_the_old_name(served: Path, renewed: tuple[Path, dict[str, Any]]) -> None:
    out, answer = renewed
    old, new = load_policy(served / "policy.yaml"), load_policy(out / "policy.yaml")
    assert (new.rules.file.name, new.rules.file.candidates) == (old.rules.file.name, old.rules.file.candidates)
    assert new.rules.file.profiles.keys() == {"thrifty"}
    assert new.certificate is not None
    assert new.certificate.probe == answer["identity"]
    assert answer["tuning"]["policy_file"] == str(out / "policy.yaml")
    assert sorted(path.name for path in out.iterdir()) == ["policy.yaml", "probe"]
    assert [path.name for path in out.parent.iterdir()] == ["new"]
    asked = ("--max-loss", 0.2, "--models", "weak,strong", "--json")
    again = said(run("tune", out / "probe", served / "later.jsonl", *asked))
    assert again["n_calibration"] == answer["n_set_aside"]


def test_a_model_joins_the_recalibrated_probe(
    served: Path, renewed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = renewed
    labels = [row | {"model": "fresh"} for row in rows_of(served / "later.jsonl") if row["model"] == "weak"][:60]
    fresh = write(tmp_path / "fresh.jsonl", labels)
    said(run("fit", "--add", "fresh", fresh, "--prior", out / "probe", "--out", tmp_path / "three", "--json"))
    base, three = artifact.load(out / "probe"), artifact.load(tmp_path / "three")
    assert three.models == ("strong", "weak", "fresh")
    assert three.linear.coef[:2].tobytes() == base.linear.coef.tobytes()


def test_few_labels_move_a_map_and_fewer_keep_it(served: Path, tmp_path: Path) -> None:
    rows = rows_of(served / "later.jsonl")
    weak = [row for row in rows if row["model"] == "weak"][::6][:120]
    strong = [row for row in rows if row["model"] == "strong"][:20]
    few = write(tmp_path / "few.jsonl", weak + strong)
    answer = said(run("recalibrate", served / "probe", few, "--holdout", 0, "--out", tmp_path / "n", "--json"))
    assert {name: one["calibration"] for name, one in answer["models"].items()} == {"weak": "moved", "strong": "kept"}
    assert (answer["decisions"], answer["certificate"], answer["n_set_aside"]) == (None, None, 0)
    old, new = artifact.load(served / "probe"), artifact.load(tmp_path / "n" / "probe")
    assert new.calibrators[0].state()["parameters"].tolist() == old.calibrators[0].state()["parameters"].tolist()
    assert new.calibrators[1].state()["parameters"].tolist() != old.calibrators[1].state()["parameters"].tolist()
    told = run("recalibrate", served / "probe", few, "--holdout", 0, "--out", tmp_path / "m")
    assert "weak: 407 labels + 120, calibration map moved" in told.output
    assert "Nothing is activated." in told.output


def test_a_file_of_its_own_certifies(served: Path, tmp_path: Path) -> None:
    own = write_outcomes(tmp_path / "own.jsonl", 300, tag="own", seed=9)
    told = run(
        *("recalibrate", served / "probe", served / "later.jsonl", "--policy", served / "policy.yaml"),
        *("--calibration", own, "--out", tmp_path / "n"),
    )
    assert told.exit_code == 0, told.output
    assert "900 prompts merged, 0 set aside" in told.output
    assert "on 300, certified." in told.output
    assert (tmp_path / "n" / "policy.yaml").exists()


def test_what_cannot_be_certified_again_writes_the_probe_and_no_policy(served: Path, tmp_path: Path) -> None:
    asked = ("--models", "weak,strong", "--min-quality", 0.5, "--out", tmp_path / "good.yaml", "--json")
    said(run("tune", served / "probe", served / "data.jsonl", *asked))
    # The weak model is wrong now, whatever the prompt, and the strong one is right on every third prompt.
    rows = [row for row in rows_of(served / "later.jsonl") if int(row["prompt"].split()[-1]) < 300]
    right = [float(row["model"] == "strong" and int(row["prompt"].split()[-1]) % 3 == 0) for row in rows]
    turned = write(tmp_path / "turned.jsonl", [row | {"score": s} for row, s in zip(rows, right, strict=True)])
    out = tmp_path / "n"
    told = run("recalibrate", served / "probe", turned, "--policy", tmp_path / "good.yaml", "--out", out, "--json")
    answer = json.loads(told.stdout)
    assert told.exit_code == NOT_CERTIFIED
    assert [path.name for path in out.iterdir()] == ["probe"]
    assert not answer["decisions"]["by_new_rule"]
    assert answer["decisions"]["n"] == 300
    assert answer["models"]["weak"]["mean_risk_after"] > answer["models"]["weak"]["mean_risk_before"] + 0.1


@pytest.mark.usefixtures("fake_features")
def test_task_offsets_take_the_labels(tmp_path: Path) -> None:
    def with_tasks(path: Path, n: int, tag: str) -> Path:
        rows = rows_of(write_outcomes(path, n, tag=tag))
        return write(path, [row | {"task": f"task {int(row['prompt'].split()[-1]) % 6}"} for row in rows])

    data, later = with_tasks(tmp_path / "d.jsonl", 240, "d"), with_tasks(tmp_path / "l.jsonl", 120, "l")
    said(run("fit", data, "--keep-statistics", "--out", tmp_path / "p", "--json"))
    answer = said(run("recalibrate", tmp_path / "p", later, "--holdout", 0, "--out", tmp_path / "n", "--json"))
    old, new = artifact.load(tmp_path / "p").tasks, artifact.load(tmp_path / "n" / "probe").tasks
    assert old is not None
    assert new is not None
    assert (new.counts - old.counts).sum() == 240
    assert any("offsets of tasks keep" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ("old", (), "the probe was fitted on data.jsonl"),
        ([{"model": "huge"}], (), "LABELS must be of models of the probe (strong, weak), got only huge"),
        ([{"model": "weak"}], (), "recalibrating needs at least 50 labels of some model"),
        ("later", ("--holdout", "2"), "the share to hold out must be"),
        ("later", ("--holdout", "0.01", "--policy", "policy.yaml"), "certifying again needs at least 50 prompts"),
        ("weak", ("--policy", "policy.yaml"), "scores of every candidate to certify again; strong missing"),
        ("later", ("--policy", "bare.yaml"), "must have a certificate of each of its rules"),
        ("later", ("--policy", "other.yaml"), "must be of PROBE"),
        ("later", ("--calibration", "later.jsonl"), "give --policy"),
    ],
)
def test_nothing_is_written_if_something_is_wrong(
    rows: Any, arguments: tuple[str, ...], message: str, served: Path, tmp_path: Path
) -> None:
    policy = yaml.safe_load((served / "policy.yaml").read_text())
    bare = {key: value for key, value in policy.items() if key not in {"certificate", "profiles"}}
    fixed = {key: value for key, value in bare.items() if key != "probe"}
    fixed["rule"] = {"kind": "fixed", "candidate": "weak"}
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(bare | {"probe": str(served / "probe")}))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(fixed))
    places = {"policy.yaml": served / "policy.yaml", "later.jsonl": served / "later.jsonl"}
    labels = {"old": served / "data.jsonl", "later": served / "later.jsonl"}.get(rows if isinstance(rows, str) else "")
    if rows == "weak":
        kept = [row for row in rows_of(served / "later.jsonl") if row["model"] == "weak"]
        labels = write(tmp_path / "weak.jsonl", kept)
    elif labels is None:
        labels = write(tmp_path / "labels.jsonl", [{"prompt": "one", "score": 1, **row} for row in rows])
    given = [places.get(one, tmp_path / one if one.endswith(".yaml") else one) for one in arguments]
    found = run("recalibrate", served / "probe", labels, *given, "--out", tmp_path / "new")
    assert found.exit_code in (1, 2), found.output
    assert message in found.output
    assert not any("new" in path.name for path in tmp_path.iterdir())


def test_a_folder_that_exists_and_a_probe_without_statistics_are_refused(served: Path, tmp_path: Path) -> None:
    taken = run("recalibrate", served / "probe", served / "later.jsonl", "--out", served / "probe")
    assert "this command replaces nothing" in taken.output
    said(run("fit", served / "data.jsonl", "--out", tmp_path / "p", "--json"))
    bare = run("recalibrate", tmp_path / "p", served / "later.jsonl", "--out", tmp_path / "n")
    assert "Fit that probe again with --keep-statistics" in bare.output
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--since", "2026-11-01"), "--since chooses grades of a ledger"),
        (("--max-request-usd", "nan"), "finite number"),
    ],
)
def test_an_option_that_would_say_nothing_is_wrong_usage(
    served: Path, tmp_path: Path, option: tuple[str, str], why: str
) -> None:
    done = run("recalibrate", served / "probe", served / "later.jsonl", "--out", tmp_path / "new", *option)
    assert done.exit_code == 2
    assert why in done.output

"""`elle fit` learns kinds of request from the column group; odd files of names are refused and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.artifacts import store as artifact
from router.policies.loading import load_policy
from tests.fakes import FakeEncoder, write_policy
from tests.router.cli.test_label_task import fake_encoder, run, said, write


@pytest.fixture(autouse=True)
def _fake_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_encoder(monkeypatch, tmp_path)


def rows(groups: Sequence[str], n: int = 200) -> list[dict[str, Any]]:
    """Return outcomes of two models; the group of a prompt is the largest of its first features."""
    rng, encoder = np.random.default_rng(0), FakeEncoder()
    found = []
    for i in range(n):
        features = encoder.encode(f"prompt {i}")
        group = groups[int(features[: len(groups)].argmax())]
        for model, good in (("small", 0.4), ("large", 0.9)):
            row = {"prompt": f"prompt {i}", "group": group, "model": model, "score": float(rng.random() < good)}
            found.append(row)
    return found


def test_the_groups_are_the_kinds_and_a_decision_names_the_nearest(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", rows(["mail", "law", "poems"]))
    summary = said(run("fit", data, "--out", tmp_path / "probe", "--json"))
    assert summary["notes"] == ["3 kinds of request are known from the column group"]
    probe = artifact.load(tmp_path / "probe")
    assert probe.kinds is not None
    assert (probe.kinds.names, probe.kinds.assumed) == (("law", "mail", "poems"), (False,) * 3)
    policy, encoder = load_policy(write_policy(tmp_path)), FakeEncoder()
    right = []
    for i in range(500, 560):
        features = encoder.encode(f"prompt {i}")
        kinds = policy.judge(features).kinds
        assert kinds is not None
        assert sum(kind.share for kind in kinds.nearest) == pytest.approx(1.0)
        right.append(kinds.nearest[0].name == ["mail", "law", "poems"][int(features[:3].argmax())])
    assert np.mean(right) > 0.9


def test_names_in_words_may_join_groups(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", rows(["mail", "7", "poems"]))
    names = tmp_path / "names.yaml"
    names.write_text("mail: everyday letters\n7: everyday letters\n", "utf-8")
    said(run("fit", data, "--out", tmp_path / "probe", "--kind-names", names, "--json"))
    probe = artifact.load(tmp_path / "probe")
    assert probe.kinds is not None
    assert probe.kinds.names == ("everyday letters", "poems")
    as_json = tmp_path / "names.json"
    as_json.write_text(json.dumps({"mail": "everyday letters", "7": "everyday letters"}), "utf-8")
    said(run("fit", data, "--out", tmp_path / "again", "--kind-names", as_json, "--json"))
    assert artifact.load(tmp_path / "again").identity == probe.identity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mial: letters", "no 'mial'; did you mean 'mail'?"),
        ("true: letters", "no true."),
        ("mail: 7", "the name of group 'mail' must be text, got a number"),
        ("mail: ''", "must hold some text"),
        ('mail: "two\\nlines"', "printable"),
        (f"mail: {'x' * 200}", "at most 120 bytes"),
        ("[mail]", "must map groups to names"),
        ("{", "must be YAML"),
        ("", "must map groups to names"),
    ],
)
def test_odd_names_are_refused_and_nothing_is_written(tmp_path: Path, text: str, message: str) -> None:
    data = write(tmp_path / "data.jsonl", rows(["mail", "law", "poems"]))
    names = tmp_path / "names.yaml"
    names.write_text(text, "utf-8")
    result = run("fit", data, "--out", tmp_path / "probe", "--kind-names", names)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "probe").exists()


def test_small_groups_are_not_known_and_the_note_says_so(tmp_path: Path) -> None:
    many = rows(["mail", "law"])
    for number, row in enumerate(many[:30]):
        row["group"] = f"one {number // 2}"
    summary = said(run("fit", write(tmp_path / "data.jsonl", many), "--out", tmp_path / "probe", "--json"))
    assert summary["notes"][0] == "2 kinds of request are known from the column group"
    assert summary["notes"][1].startswith("15 kinds are not known: they have fewer than 10 prompts")
    for number, row in enumerate(many):
        row["group"] = f"one {number // 2}"
    summary = said(run("fit", write(tmp_path / "ids.jsonl", many), "--out", tmp_path / "other", "--json"))
    assert summary["notes"] == ["no kinds of request are known: fewer than two groups have 10 prompts"]
    assert artifact.load(tmp_path / "other").kinds is None


def test_a_model_that_is_added_leaves_the_kinds_as_they_are(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", rows(["mail", "law", "poems"]))
    said(run("fit", data, "--out", tmp_path / "probe", "--keep-statistics", "--json"))
    labels = [{**row, "model": "fresh", "prompt": f"new {row['prompt']}"} for row in rows(["x"], 60)[::2]]
    new = write(tmp_path / "labels.jsonl", labels)
    said(run("fit", "--add", "fresh", new, "--prior", tmp_path / "probe", "--out", tmp_path / "more", "--json"))
    before, after = artifact.load(tmp_path / "probe").kinds, artifact.load(tmp_path / "more").kinds
    assert before is not None
    assert after is not None
    features = FakeEncoder().encode("any prompt")
    assert after.nearest(features) == before.nearest(features)


def test_an_adapted_probe_keeps_the_kinds_unless_the_new_data_have_their_own(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", rows(["mail", "law", "poems"]))
    said(run("fit", data, "--out", tmp_path / "probe", "--keep-statistics", "--json"))
    plain = [{key: value for key, value in row.items() if key != "group"} for row in rows(["x"], 80)]
    new = write(tmp_path / "new.jsonl", plain)
    said(run("fit", new, "--prior", tmp_path / "probe", "--out", tmp_path / "kept", "--json"))
    assert artifact.load(tmp_path / "kept").kinds.names == ("law", "mail", "poems")  # type: ignore[union-attr]
    other = write(tmp_path / "other.jsonl", rows(["chess", "cooking"], 80))
    said(run("fit", other, "--prior", tmp_path / "probe", "--out", tmp_path / "own", "--json"))
    assert artifact.load(tmp_path / "own").kinds.names == ("chess", "cooking")  # type: ignore[union-attr]

"""The `elle` command as scripts use it: JSON on stdout, the rest on stderr, exit status 1 for what is wrong."""

from __future__ import annotations

import dataclasses
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
from router.cli.render import decision_to_dict
from router.client import RouterClient
from router.tuning.outcomes import feature_cache as features
from tests.fakes import FakeEncoder, fake_spec


def use_fake_encoder(monkeypatch: pytest.MonkeyPatch, cache: Path) -> FakeEncoder:
    """Run the whole command with the forward pass replaced, at the seam where encoders are loaded."""
    loaded = FakeEncoder()

    def load(spec: EncoderSpec, directory: Path | None = None) -> FakeEncoder:
        # It computes whatever features are asked for.
        monkeypatch.setattr(loaded, "_spec", spec)
        return loaded

    monkeypatch.setattr(features, "load_encoder", load)
    monkeypatch.setenv("ELLE_CACHE_DIR", str(cache))
    return loaded


@pytest.fixture
def fake_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEncoder:
    return use_fake_encoder(monkeypatch, tmp_path / "cache")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write_outcomes(path: Path, n: int = 300, offset: int = 0) -> Path:
    """Outcomes that follow the fake encoder's first feature."""
    encoder, rng = FakeEncoder(), np.random.default_rng(offset)
    rows = []
    for i in range(offset, offset + n):
        text = f"question {i}"
        logit = 2 * encoder.encode(text)[0]
        for model, shift in (("small", 1.0), ("large", -1.5)):
            fails = rng.random() < 1 / (1 + np.exp(-(logit * (model == "small") + shift)))
            rows.append({"prompt": text, "model": model, "score": 0 if fails else 1})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_fit_then_evaluate_from_files(tmp_path: Path, fake_encoder: FakeEncoder) -> None:
    data, held_out = write_outcomes(tmp_path / "a.jsonl"), write_outcomes(tmp_path / "b.jsonl", offset=300)
    summary = as_json(run("fit", data, "--out", tmp_path / "probe", "--json"))
    assert summary["n_prompts"] == 300
    assert summary["pair"]["weak"] == "small"
    pair = ("--weak", "small", "--strong", "large", "--resamples", 100)
    report = as_json(run("evaluate", tmp_path / "probe", held_out, *pair, "--json"))
    assert report["apgr"]["value"] > 0.55
    assert report["n_seen_in_fit"] == 0
    again = run("evaluate", tmp_path / "probe", data, *pair, "--quick", "--json")
    assert "flatter" in again.stderr
    assert as_json(again)["n_seen_in_fit"] == 300
    for command in (
        ("fit", data, "--out", tmp_path / "probe", "--force"),
        ("evaluate", tmp_path / "probe", held_out, *pair, "--quick"),
    ):
        table = run(*command)
        assert table.exit_code == 0
        assert "APGR" in table.stdout


def test_a_second_fit_does_not_encode_again(tmp_path: Path, fake_encoder: FakeEncoder) -> None:
    data = write_outcomes(tmp_path / "a.jsonl", n=100)
    first = run("fit", data, "--out", tmp_path / "probe")
    assert "encoding: 100 of 100" in first.stderr
    count = len(fake_encoder.encoded)
    second = run("fit", data, "--out", tmp_path / "probe", "--force")
    assert second.exit_code == 0
    assert len(fake_encoder.encoded) == count
    shard = next((tmp_path / "cache").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:50])
    assert run("fit", data, "--out", tmp_path / "probe", "--force").exit_code == 0
    assert len(fake_encoder.encoded) == 2 * count


def test_a_production_log_where_one_model_answered_each_prompt_is_fitted(
    tmp_path: Path, fake_encoder: FakeEncoder
) -> None:
    rows = [{"prompt": f"question {i}", "model": "ab"[i % 2], "score": i % 3 / 2} for i in range(120)]
    rows.append({"prompt": "question x", "model": "rare", "score": 1})
    data = tmp_path / "log.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = as_json(run("fit", data, "--out", tmp_path / "p", "--json"))
    assert {model: found["n"] for model, found in summary["models"].items()} == {"a": 60, "b": 60}
    assert summary["pair"] is None
    assert summary["pair_note"].startswith("the models have no common prompts")
    assert artifact.load(tmp_path / "p").card.metrics["pair_note"] == summary["pair_note"]
    assert (
        "rare is left out of the probe: it has labels of fewer than 5 different prompts (1 in all)" in summary["notes"]
    )
    shown = run("fit", data, "--out", tmp_path / "p", "--seed", "1", "--force").stdout
    assert "Note: the models have no common prompts" in " ".join(shown.split())
    assert f"in place of probe {summary['identity'][:12]}" in shown
    refused = run("fit", data, "--out", tmp_path / "q", "--models", "a,rare")
    assert refused.exit_code == 1
    assert "every model needs labels of 5 different prompts; rare has fewer" in refused.output
    assert not (tmp_path / "q").exists()


def test_models_can_be_chosen(tmp_path: Path, fake_encoder: FakeEncoder) -> None:
    data = write_outcomes(tmp_path / "a.jsonl", n=100)
    summary = as_json(run("fit", data, "--out", tmp_path / "p", "--models", "large", "--json"))
    assert list(summary["models"]) == ["large"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "{data}", "--out", "{out}", "--models", "huge"), "got huge"),
        (("fit", "none.parquet", "--out", "{out}"), "does not exist"),
        (("fit", "{data}", "--out", "{out}", "--encoder", "bert-huge"), "minilm-l6"),
        (("evaluate", "none", "{data}", "--weak", "small", "--strong", "large"), "does not exist"),
        (("validate", "none.yaml"), "does not exist"),
        (("decide", ""), "some text"),
        (("decide", "x" * 600_000), "at most 524,288 bytes"),
        (("decide", "--chat", "none.json"), "--chat none.json cannot be read: No such file"),
        (("decide", "--chat", "{deep}"), "must be a JSON file: it is nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_status_1(
    tmp_path: Path, fake_encoder: FakeEncoder, arguments: tuple[str, ...], message: str
) -> None:
    data = write_outcomes(tmp_path / "a.jsonl", n=60)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    places = {"{data}": str(data), "{out}": str(tmp_path / "out"), "{deep}": str(tmp_path / "deep.json")}
    result = run(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_the_weak_model_must_be_the_weak_one(tmp_path: Path, fake_encoder: FakeEncoder) -> None:
    data = write_outcomes(tmp_path / "a.jsonl")
    assert run("fit", data, "--out", tmp_path / "p").exit_code == 0
    swapped = run("evaluate", tmp_path / "p", data, "--weak", "large", "--strong", "small", "--quick")
    assert swapped.exit_code == 1
    assert "Swap them" in swapped.stderr


@pytest.mark.usefixtures("_real_encoder")
class TestOnTheRealEncoder:
    def test_decide_prints_the_decision_record(self) -> None:
        record = as_json(run("decide", "What is 2 + 2?", "--json"))
        assert record["chosen"] in {c["candidate"] for c in record["candidates"]}
        assert record["policy"]["name"] == "default"
        table = run("decide", "What is 2 + 2?")
        assert record["chosen"] in table.stdout

    def test_decide_says_what_the_service_says(self, client: RouterClient) -> None:
        for text in ("What is 2 + 2?", "Prove that the square root of 2 is irrational.", "日本の首都は?"):
            served = decision_to_dict(client.route(text))
            printed = as_json(run("decide", text, "--json"))
            for record in (served, printed):
                del record["decision_id"], record["timings"]
            del printed["verb"], printed["exit_status"]
            assert json.loads(json.dumps(served)) == printed

    def test_decide_reads_a_chat_body(self, tmp_path: Path) -> None:
        body = {"model": "any", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 10}
        (tmp_path / "chat.json").write_text(json.dumps(body), "utf-8-sig")
        from_chat = as_json(run("decide", "--chat", tmp_path / "chat.json", "--json"))
        assert (
            from_chat["candidates"][0]["risk"]
            == as_json(run("decide", "What is 2 + 2?", "--json"))["candidates"][0]["risk"]
        )

    def test_decide_takes_overrides(self) -> None:
        assert as_json(run("decide", "x", "--pin", "economy", "--json"))["reason"] == "PINNED"
        assert run("decide", "x", "--pin", "nobody").exit_code == 1

    def test_a_policy_that_cannot_answer_is_told_by_words_and_exit_status(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        text = run("policy", "new").stdout
        (tmp_path / "my.yaml").write_text(text.replace("api_base: canned", "api_key_env: NO_SUCH_KEY"))
        result = run("validate", tmp_path / "my.yaml")
        assert result.exit_code == 3
        assert "can decide but NOT ANSWER" in result.stdout
        assert "is valid" not in result.stdout
        assert "NO_SUCH_KEY is not set here" in result.stdout
        asked = run("validate", tmp_path / "my.yaml", "--json")
        assert asked.exit_code == 3
        assert json.loads(asked.stdout)["can_answer"] is False
        result = run("validate", tmp_path / "my.yaml", "--deciding-only")
        assert result.exit_code == 0
        assert "is valid" in result.stdout
        assert as_json(run("validate", tmp_path / "my.yaml", "--deciding-only", "--json"))["can_answer"] is None

    def test_the_default_policy_can_be_copied_and_validates(self, tmp_path: Path) -> None:
        (tmp_path / "my.yaml").write_text(run("policy", "new").stdout)
        found = as_json(run("validate", tmp_path / "my.yaml", "--json"))
        assert found["valid"] is True
        assert "is valid" in run("validate", tmp_path / "my.yaml").stdout


def test_version_names_what_it_runs_on() -> None:
    found = as_json(run("version", "--json"))
    assert {"elle-router", "python", "grpcio", "numpy"} <= found.keys()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit a probe on 300 prompts, with the statistics of its fit, once for all tests that adapt it."""
    folder = tmp_path_factory.mktemp("old")
    with pytest.MonkeyPatch.context() as patch:
        use_fake_encoder(patch, folder / "cache")
        data = write_outcomes(folder / "old.jsonl")
        as_json(run("fit", data, "--out", folder / "old", "--keep-statistics", "--json"))
    return folder


@pytest.fixture
def old_probe(old: Path, tmp_path: Path, fake_encoder: FakeEncoder) -> Path:
    """Return a copy of that probe, with its data beside it."""
    return Path(shutil.copytree(old, tmp_path, dirs_exist_ok=True)) / "old"


def test_a_probe_is_adapted_to_few_labels_and_says_so(tmp_path: Path, old_probe: Path) -> None:
    data = write_outcomes(tmp_path / "new.jsonl", n=60, offset=300)
    summary = as_json(run("fit", data, "--prior", old_probe, "--out", tmp_path / "new", "--json"))
    old, probe = artifact.load(old_probe), artifact.load(tmp_path / "new")
    assert summary["adapted_from"] == {
        "identity": old.identity,
        "title": "old",
        "n_old_rows": 300,
        "n_new_rows": 60,
        "weight": summary["adapted_from"]["weight"],
    }
    assert 0 < summary["adapted_from"]["weight"] <= 1
    assert summary["split"] == "each prompt text left out in turn"
    assert summary["models"]["small"]["auroc"] > 0.7
    assert summary["models"]["small"]["n"] == 60
    assert set(probe.fitted_on) > set(old.fitted_on)
    assert len(probe.fitted_on) == 360
    assert [source.name for source in probe.card.data] == ["old.jsonl", "new.jsonl"]
    card = (tmp_path / "new" / "README.md").read_text()
    assert f"Adapted to 60 prompts from the probe 'old' ({old.identity[:12]})" in card
    assert "| adapted_from.weight |" in card
    assert (
        "Adapted to 60 prompts" in run("fit", data, "--prior", old_probe, "--out", tmp_path / "new", "--force").output
    )
    unseen = write_outcomes(tmp_path / "unseen.jsonl", offset=400)
    pair = ("--weak", "small", "--strong", "large", "--resamples", 100)
    report = as_json(run("evaluate", tmp_path / "new", unseen, *pair, "--quick", "--json"))
    assert report["n_seen_in_fit"] == 0
    assert report["apgr"]["low"] > 0.5
    assert report["ece"] < 0.15


def test_what_either_data_set_holds_is_familiar_to_an_adapted_probe(tmp_path: Path, old_probe: Path) -> None:
    encoder = FakeEncoder()
    data = write_outcomes(tmp_path / "new.jsonl", n=60, offset=300)
    as_json(run("fit", data, "--prior", old_probe, "--out", tmp_path / "new", "--json"))
    probe = artifact.load(tmp_path / "new")
    both = np.stack([encoder.encode(f"question {i}") for i in range(360)])
    assert not probe.predict(both).unfamiliar[300:].any()
    assert probe.predict(both).unfamiliar.mean() < 0.02
    assert probe.predict(10 * both).unfamiliar.mean() > 0.9


@pytest.mark.parametrize(
    ("n", "change", "message"),
    [
        (49, {}, "at least 50 labels of each model; large has 49"),
        (60, {"large": "huge"}, "missing: large; not in the prior: huge"),
    ],
)
def test_data_that_a_prior_cannot_be_adapted_to_are_refused_and_nothing_is_written(
    tmp_path: Path, old_probe: Path, n: int, change: dict[str, str], message: str
) -> None:
    data = write_outcomes(tmp_path / "new.jsonl", n=n, offset=300)
    for old, new in change.items():
        data.write_text(data.read_text().replace(f'"{old}"', f'"{new}"'))
    result = run("fit", data, "--prior", old_probe, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_only_models_of_the_prior_are_adapted(tmp_path: Path, old_probe: Path) -> None:
    data = write_outcomes(tmp_path / "new.jsonl", n=60, offset=300)
    extra = [{"prompt": f"question {i}", "model": "third", "score": 1} for i in range(300, 360)]
    data.write_text(data.read_text() + "".join(json.dumps(row) + "\n" for row in extra))
    refused = run("fit", data, "--prior", old_probe, "--out", tmp_path / "new")
    assert "not in the prior: third" in refused.output
    chosen = ("--models", "small,large")
    summary = as_json(run("fit", data, "--prior", old_probe, *chosen, "--out", tmp_path / "new", "--json"))
    assert list(summary["models"]) == ["large", "small"]


def test_a_prior_without_statistics_or_of_another_encoder_is_a_named_error(
    tmp_path: Path, old_probe: Path, fake_encoder: FakeEncoder
) -> None:
    data = write_outcomes(tmp_path / "new.jsonl", n=60, offset=300)
    bare, other = tmp_path / "bare", tmp_path / "other"
    as_json(run("fit", tmp_path / "old.jsonl", "--out", bare, "--json"))
    assert "--keep-statistics" in run("fit", data, "--prior", bare, "--out", tmp_path / "new").output
    prior = artifact.load_prior(old_probe)
    spec = fake_spec("another encoder")
    foreign = dataclasses.replace(artifact.load(bare), encoder=spec.to_dict(), encoder_identity=spec.identity)
    artifact.save(foreign, other, prior)
    result = run("fit", data, "--prior", other, "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "must come from the encoder this probe was fitted with" in result.output
    artifact.save(dataclasses.replace(artifact.load(bare), calibrators=()), other, prior)
    assert "calibrated by beta maps; got none" in run("fit", data, "--prior", other, "--out", tmp_path / "new").output


def test_an_adapted_probe_is_no_prior(tmp_path: Path, old_probe: Path) -> None:
    data = write_outcomes(tmp_path / "new.jsonl", n=60, offset=300)
    result = run("fit", data, "--prior", old_probe, "--keep-statistics", "--out", tmp_path / "new")
    assert result.exit_code == 1
    assert "keeps no statistics" in result.output

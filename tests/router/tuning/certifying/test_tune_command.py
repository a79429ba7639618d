"""`elle tune` from files to a served policy: certified on prompts never fitted on, and void once edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from probes.artifacts import store as artifact
from probes.encoders.spec import MINILM_L6, EncoderSpec
from router.cli.main import cli
from router.deciding.pipeline import Router
from router.errors import ConfigError
from router.policies.loading import load_policy
from router.tuning.outcomes import feature_cache as features
from router.tuning.reporting.threshold_marker import read_threshold_marker
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder

PAIR = ("--weak", "small", "--strong", "large")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write_outcomes(path: Path, n: int = 2000) -> Path:
    """Write outcomes: the strong model is nearly always right, the weak one fails if the first feature is large."""
    encoder, rng = FakeEncoder(), np.random.default_rng(0)
    rows = []
    for i in range(n):
        text = f"question {i}"
        fails = {"small": 1 / (1 + np.exp(4 - 4 * encoder.encode(text)[0])), "large": 0.02}
        rows += [{"prompt": text, "model": m, "score": int(rng.random() > p)} for m, p in fails.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Outcomes in one file, and a probe fitted on the half of it that `--holdout` left."""
    folder = tmp_path_factory.mktemp("tune")

    def load(spec: EncoderSpec, directory: Path | None = None) -> FakeEncoder:
        return FakeEncoder(spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_encoder", load)
        patch.setenv("ELLE_CACHE_DIR", str(folder / "cache"))
        write_outcomes(folder / "data.jsonl")
        fitted = run("fit", folder / "data.jsonl", "--holdout", 0.5, "--out", folder / "probe")
        assert fitted.exit_code == 0, fitted.output
        yield folder


def tuned(folder: Path, out: Path, *more: object) -> Any:
    result = run("tune", folder / "probe", folder / "data.jsonl", *PAIR, "--out", out, "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_certified_policy_is_written_and_served_as_it_was_certified(folder: Path) -> None:
    report = tuned(folder, folder / "policy.yaml", "--max-loss", 0.05)
    assert report["certified"] is True
    assert report["loss_upper_bound"] <= 0.05
    assert report["loss_estimate"] < report["loss_upper_bound"]
    assert report["weak_share"] > 0.3
    assert 800 < report["n_calibration"] < 1200
    assert report["n_calibration"] + report["n_seen_in_fit"] == 2000
    keys = {"threshold", "thresholds", "expected_cost_saving", "data_digest", "expires"}
    assert keys <= report.keys()
    policy = load_policy(folder / "policy.yaml")
    assert policy.rules.file.rule.thresholds == (report["threshold"],)
    encoder = FakeEncoder(MINILM_L6)
    router = Router([policy], {encoder.spec.identity: encoder})
    chosen = [router.decide(RouteQuery.from_prompt(f"question {i}")).chosen for i in range(300)]
    assert 0.2 < np.mean([name == "small" for name in chosen]) < 0.9


def test_a_stricter_target_never_saves_more(folder: Path) -> None:
    shares = [
        tuned(folder, folder / f"{i}.yaml", "--max-loss", x)["weak_share"] for i, x in enumerate((0.03, 0.06, 0.1))
    ]
    assert shares == sorted(shares)


def test_what_the_data_cannot_prove_is_said_and_nothing_is_written(folder: Path) -> None:
    out = folder / "never.yaml"
    result = run("tune", folder / "probe", folder / "data.jsonl", *PAIR, "--max-loss", 0.0001, "--out", out, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["certified"] is False
    assert not out.exists()


def test_prompts_of_the_fit_are_no_evidence(folder: Path, tmp_path: Path) -> None:
    fitted = run("fit", folder / "data.jsonl", "--out", tmp_path / "all")
    assert fitted.exit_code == 0
    result = run(
        "tune", tmp_path / "all", folder / "data.jsonl", *PAIR, "--max-loss", 0.05, "--out", tmp_path / "p.yaml"
    )
    assert result.exit_code == 1
    assert "--holdout" in result.stderr
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("rule", "thresholds"), [0.9], "rule, candidates, safe default"),
        (("safe_default",), "small", "rule, candidates, safe default"),
        (("certificate", "probe"), "0" * 64, "must be for the policy's probe"),
    ],
)
def test_an_edit_of_what_decides_voids_the_certificate(
    folder: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    tuned(folder, folder / "edited.yaml", "--max-loss", 0.05, "--force")
    data = yaml.safe_load((folder / "edited.yaml").read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "edited.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        load_policy(folder / "edited.yaml")


def test_profiles_are_chosen_by_policy_name(folder: Path) -> None:
    out = folder / "profiles.yaml"
    tuned(folder, out, "--max-loss", 0.05, "--profile", "economy=0.15")
    policy = load_policy(out)
    encoder = FakeEncoder(MINILM_L6)
    router = Router([policy, *policy.profiles()], {encoder.spec.identity: encoder})
    queries = [f"question {i}" for i in range(300)]

    def weak(name: str | None) -> int:
        return sum(
            router.decide(RouteQuery.from_prompt(q, overrides=Overrides(policy=name))).chosen == "small"
            for q in queries
        )

    assert weak("profiles:economy") > weak(None)


def test_a_model_without_scores_is_named(folder: Path) -> None:
    result = run("tune", folder / "probe", folder / "data.jsonl", "--models", "small,huge", "--max-loss", 0.05)
    assert result.exit_code == 1
    assert "huge" in result.stderr


REPORT = (*PAIR, "--quick", "--resamples", 100)


@pytest.mark.parametrize(
    ("target", "limit", "region", "bound"),
    [
        ("--max-loss", 0.05, "All thresholds from -1 to {threshold:g} are certified.", "upper bound"),
        ("--max-strong-share", 0.6, "All thresholds from {threshold:g} to 1 are certified.", "upper bound"),
        ("--min-quality", 0.5, "All thresholds from -1 to {threshold:g} are certified.", "lower bound"),
    ],
)
def test_the_report_marks_what_the_certificate_covers(
    folder: Path, tmp_path: Path, target: str, limit: float, region: str, bound: str
) -> None:
    found = tuned(folder, tmp_path / "p.yaml", target, limit)
    out = tmp_path / "report"
    shown = run(
        "report", folder / "probe", folder / "data.jsonl", *REPORT, "--policy", tmp_path / "p.yaml", "--out", out
    )
    assert shown.exit_code == 0, shown.output
    page = (out / "report.html").read_text("utf-8")
    assert region.format(threshold=found["threshold"]) in page
    kind = target.removeprefix("--").replace("-", "_")
    certified = yaml.safe_load((tmp_path / "p.yaml").read_text("utf-8"))["certificate"]["targets"][0]
    assert f"Target {kind} {limit:g}, confidence 0.95: estimate {certified['estimate']:.4g}, {bound}" in page
    assert "Green: certified thresholds." in page


def test_with_targets_of_both_kinds_only_the_policy_is_marked(folder: Path, tmp_path: Path) -> None:
    probe = artifact.load(folder / "probe")
    tuned(folder, tmp_path / "p.yaml", "--max-loss", 0.1, "--max-strong-share", 0.8)
    mark = read_threshold_marker(tmp_path / "p.yaml", probe, "small", "large")
    assert mark.certified_region is None
    assert "The certificate covers the policy as it is, and no range of thresholds" in mark.describe()[-1]


def test_a_report_with_a_voided_certificate_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    tuned(folder, tmp_path / "p.yaml", "--max-loss", 0.05)
    data = yaml.safe_load((tmp_path / "p.yaml").read_text("utf-8"))
    data["rule"]["thresholds"] = [0.9]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data), "utf-8")
    out = tmp_path / "report"
    done = run(
        "report", folder / "probe", folder / "data.jsonl", *REPORT, "--policy", tmp_path / "p.yaml", "--out", out
    )
    assert done.exit_code == 1
    assert "were changed since" in done.stderr
    assert not out.exists()

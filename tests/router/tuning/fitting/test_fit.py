"""Tests of fitting: a probe finds what the data hold and nothing else, and the shipped probe is what its card says."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from probes.artifacts import store as artifact
from probes.errors import DataError
from probes.probe import DifficultyProbe, fingerprints
from router.policies.loading import DEFAULTS, EXAMPLE_POLICY, load_policy
from router.tuning.fitting.fit import fit_probe
from router.tuning.judging.fit_figures import FitFigures, measure_fit, with_figures
from router.tuning.judging.probe_evaluation import EvaluationOptions, evaluate
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache
from router.tuning.reporting.evaluation_text import print_evaluation
from tests.conftest import DATA
from tests.fakes import fake_spec

N, D = 1200, 8


def make_outcomes(seed: int = 0, prefix: str = "prompt") -> tuple[Outcomes, np.ndarray]:
    """Two models; the gain of the second follows the first feature, its risk the second one."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((N, D)).astype(np.float32)
    strong_fails = 1 / (1 + np.exp(2 - features[:, 1]))
    weak_fails = np.clip(strong_fails + np.clip(0.3 + 0.3 * features[:, 0], 0, 1), 0, 1)
    scores = (rng.random((N, 2)) > np.column_stack([weak_fails, strong_fails])).astype(float)
    texts = tuple(f"{prefix} {i}" for i in range(N))
    unknown = np.full((N, 2), np.nan)
    return Outcomes(texts, texts, ("",) * N, ("weak", "strong"), scores, unknown, unknown, unknown, ()), features


def fit_and_measure(outcomes: Outcomes, features: npt.NDArray[np.float32]) -> tuple[DifficultyProbe, FitFigures]:
    fitted = fit_probe(outcomes, features, fake_spec(), title="t")
    figures = measure_fit(fitted, outcomes)
    return with_figures(fitted.probe, figures), figures


@pytest.fixture(scope="module")
def fitted() -> tuple[DifficultyProbe, object]:
    outcomes, features = make_outcomes()
    probe, figures = fit_and_measure(outcomes, features)
    return probe, figures.pair


def test_the_gain_ranking_is_found_and_holds_on_new_prompts(fitted: tuple[DifficultyProbe, object]) -> None:
    outcomes, features = make_outcomes(seed=1, prefix="new")
    report = evaluate(fitted[0], outcomes, features, EvaluationOptions(resamples=200))
    assert report.probe.apgr.low > 0.6
    assert report.probe.apgr.low > report.baselines["prompt_length"].apgr.high
    assert abs(report.baselines["random"].apgr.value - 0.5) < 0.1
    assert (report.probe.value("ece") or 0.0) < 0.05
    assert report.n_seen_in_fit == 0
    assert report.warning is None


def test_prompts_seen_in_fitting_are_counted_and_warned_of(fitted: tuple[DifficultyProbe, object]) -> None:
    outcomes, features = make_outcomes()
    report = evaluate(fitted[0], outcomes, features, EvaluationOptions(resamples=100))
    assert report.n_seen_in_fit == N
    assert report.warning is not None
    assert "flatter" in report.warning


def test_the_report_is_json_with_the_words_of_the_contract(fitted: tuple[DifficultyProbe, object]) -> None:
    outcomes, features = make_outcomes(seed=1)
    report = evaluate(fitted[0], outcomes, features, EvaluationOptions(resamples=100))
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    for figures in (found, *found["baselines"].values()):
        assert {"apgr", "cpt50", "cpt80", "auroc", "ece"} <= figures.keys()
        assert figures["apgr"].keys() >= {"value", "low", "high"}
    assert found["baselines"].keys() >= {"random", "prompt_length"}
    assert found["n"] == N
    print_evaluation(report, Console(quiet=True))


def test_shuffled_scores_are_not_predicted() -> None:
    outcomes, features = make_outcomes()
    shuffled = dataclasses.replace(outcomes, scores=np.random.default_rng(5).permutation(outcomes.scores))
    _, figures = fit_and_measure(shuffled, features)
    models, pair = figures.models, figures.pair
    assert abs(models["weak"].pearson_r or 0) < 0.12
    assert pair is not None
    assert pair.ranking.apgr.low < 0.5 < pair.ranking.apgr.high


def test_missing_pairs_are_missing_and_not_wrong() -> None:
    outcomes, features = make_outcomes()
    holes = outcomes.scores.copy()
    holes[::3, 0] = np.nan
    probe, figures = fit_and_measure(dataclasses.replace(outcomes, scores=holes), features)
    models, pair = figures.models, figures.pair
    assert (models["weak"].n, models["strong"].n) == (800, 1200)
    assert models["weak"].mean_score == pytest.approx(np.nanmean(holes[:, 0]))
    assert pair is not None
    assert pair.n == 800
    assert probe.card.n_samples == {"weak": 800, "strong": 1200}


def test_a_single_model_can_be_fitted() -> None:
    outcomes, features = make_outcomes()
    probe, figures = fit_and_measure(outcomes.select_models(["weak"]), features)
    pair = figures.pair
    assert probe.models == ("weak",)
    assert pair is None


def test_fitting_from_features_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = metadata.version

    def version(name: str) -> str:
        if name in ("torch", "transformers", "tokenizers"):
            raise metadata.PackageNotFoundError(name)
        return versions(name)

    monkeypatch.setattr(metadata, "version", version)
    outcomes, features = make_outcomes()
    probe = fit_probe(outcomes, features, fake_spec(), title="t").probe
    assert probe.card.versions["torch"] == "unknown"
    assert probe.card.versions["numpy"] == np.__version__


def test_too_few_prompts_are_refused() -> None:
    outcomes, features = make_outcomes()
    few = dataclasses.replace(outcomes, texts=outcomes.texts[:49], scores=outcomes.scores[:49])
    with pytest.raises(DataError, match="at least 50 prompts, got 49"):
        fit_probe(few, features[:49], fake_spec(), title="t")


def test_repeated_prompts_never_stand_on_both_sides_of_a_fold() -> None:
    # Every text twice with unrelated features of its own: memorising a text would show as skill.
    rng = np.random.default_rng(3)
    outcomes, _ = make_outcomes()
    half = N // 2
    texts = tuple(f"prompt {i % half}" for i in range(N))
    memorable = np.tile(rng.standard_normal((half, 200)), (2, 1)).astype(np.float32)
    scores = np.tile((rng.random((half, 2)) > 0.5).astype(float), (2, 1))
    _, figures = fit_and_measure(dataclasses.replace(outcomes, texts=texts, scores=scores), memorable)
    models = figures.models
    assert (models["weak"].pearson_r or 0) < 0.15


def test_the_summary_sets_chance_and_length_beside_the_probe(fitted: tuple[DifficultyProbe, object]) -> None:
    pair = fitted[1]
    assert pair is not None
    assert set(pair.baselines) == {"random", "prompt_length"}  # type: ignore[attr-defined]
    random = pair.baselines["random"]  # type: ignore[attr-defined]
    assert random.apgr.low < 0.5 < random.apgr.high
    assert random.ahead["apgr"].low > 0
    assert random.value("ece") < 0.06


class TestShippedProbe:
    def test_it_loads_and_tells_where_it_comes_from(self) -> None:
        policy = load_policy(EXAMPLE_POLICY)
        assert policy.probe is not None
        card = policy.probe.card
        assert [source.name for source in card.data] == ["routellm_mmlu.parquet", "routellm_gsm8k.parquet"]
        assert all(len(source.sha256) == 64 for source in card.data)
        assert set(card.n_samples.values()) == {10642}
        assert card.metrics["pair"]["ranking"]["apgr"]["value"] > 0.66  # type: ignore[index, call-overload]
        assert (DEFAULTS / "mixtral-gpt4" / artifact.README).is_file()

    def test_its_data_are_the_files_in_shared(self) -> None:
        if not DATA.is_dir():
            pytest.skip("../shared/data is not here")
        probe = load_policy(EXAMPLE_POLICY).probe
        assert probe is not None
        outcomes = read_outcomes(DATA / "routellm_mmlu.parquet", DATA / "routellm_gsm8k.parquet")
        assert outcomes.sources == probe.card.data
        assert np.array_equal(np.sort(fingerprints(outcomes.texts)), np.sort(probe.fitted_on))

    @pytest.mark.slow
    @pytest.mark.usefixtures("_real_encoder")
    def test_elle_fit_reproduces_it(self) -> None:
        if not DATA.is_dir():
            pytest.skip("../shared/data is not here")
        shipped = load_policy(EXAMPLE_POLICY)
        assert shipped.probe is not None
        assert shipped.encoder_spec is not None
        outcomes = read_outcomes(DATA / "routellm_mmlu.parquet", DATA / "routellm_gsm8k.parquet")
        features = FeatureCache().features(shipped.encoder_spec, outcomes.texts)
        again = fit_probe(outcomes, features, shipped.encoder_spec, title="again").probe
        was, now = (probe.predict(features[:2000]).risk for probe in (shipped.probe, again))
        assert np.abs(was - now).max() < 0.02
        assert np.mean(((was[:, 0] - was[:, 1]) > 0.15) == ((now[:, 0] - now[:, 1]) > 0.15)) > 0.995

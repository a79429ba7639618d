"""Tests of the report: one page that fetches nothing, escapes names from the data and lists the router's mistakes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from router.errors import ConfigError
from router.tuning.fitting.fit import fit_probe
from router.tuning.judging.learning_curve import learning_points
from router.tuning.judging.probe_evaluation import PROBE, EvaluationOptions, ScoredRouters
from router.tuning.judging.ranking import RouterScores, Truth
from router.tuning.reporting import charts
from router.tuning.reporting.mistakes import find_mistakes
from router.tuning.reporting.report import build_report
from router.tuning.reporting.threshold_marker import ThresholdMarker, read_threshold_marker
from tests.fakes import fake_probe, fake_spec
from tests.router.outcomes import make_outcomes

PNG = b"\x89PNG\r\n\x1a\n"
MARKER = ThresholdMarker("a policy", 0.1)


class Page(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report() -> tuple[str, dict[str, bytes]]:
    outcomes, features = make_outcomes(300, costs=(0.001, 0.01))
    # Names that would be markup, or mathematics to matplotlib.
    groups = tuple(f"<script>{group}</script> $x" for group in outcomes.groups)
    outcomes = replace(outcomes, groups=groups, ids=tuple(f"<b>{i}</b>" for i in outcomes.ids))
    probe = fit_probe(outcomes, features, fake_spec(), title="<i>probe</i>").probe
    return build_report(probe, outcomes, features, EvaluationOptions(folds=3, resamples=50), marker=MARKER)


class TestPage:
    def test_it_is_well_formed_and_fetches_nothing(self, report: tuple[str, dict[str, bytes]]) -> None:
        page = Page(report[0])
        assert page.open == []
        assert page.addresses
        assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
        assert "default-src 'none'" in report[0]
        assert not re.search(r"url\(|@import|<script|<link|https?://", report[0])

    def test_names_from_the_data_are_text_and_never_markup(self, report: tuple[str, dict[str, bytes]]) -> None:
        text = "".join(Page(report[0]).text)
        assert "<b>id-" in text
        assert "<b>id-" not in report[0]

    def test_it_holds_no_prompt(self, report: tuple[str, dict[str, bytes]]) -> None:
        assert "prove the theorem" not in report[0]
        assert "name the colour" not in report[0]

    def test_every_picture_is_in_it_and_beside_it(self, report: tuple[str, dict[str, bytes]]) -> None:
        page, pictures = report
        assert set(pictures) == {
            "cost-quality", "reliability", "threshold", "slices-group", "slices-length", "slices-script", "learning",
        }  # fmt: skip
        assert all(png.startswith(PNG) for png in pictures.values())
        assert page.count("data:image/png;base64,") == len(pictures)

    def test_it_says_which_figure_to_expect_and_holds_every_baseline(
        self, report: tuple[str, dict[str, bytes]]
    ) -> None:
        text = "".join(Page(report[0]).text)
        for said in ("expect it for kinds of prompts it was not fitted on", "prompt length", "oracle", "always large"):
            assert said in text
        assert "Policy a policy, threshold 0.1: no certificate." in text


class TestThresholds:
    def test_the_curve_runs_from_nothing_lost_to_the_whole_gap(self) -> None:
        rng = np.random.default_rng(0)
        scores = np.stack([rng.random(500) < 0.5, rng.random(500) < 0.8], axis=1).astype(float)
        gain = rng.normal(size=500)
        curve = charts.threshold_curve(gain, Truth(scores, np.arange(500)), resamples=50)
        assert curve.weak_share[-1] == 1.0
        assert curve.loss[-1] == pytest.approx(scores[:, 1].mean() - scores[:, 0].mean())
        middle = len(curve.threshold) // 2
        sent = gain <= curve.threshold[middle]
        assert curve.loss[middle] == pytest.approx(((scores[:, 1] - scores[:, 0]) * sent).mean())
        assert curve.weak_share[middle] == pytest.approx(sent.mean())
        assert (curve.low <= curve.high).all()

    def policy(self, tmp_path: Path, **values: object) -> Path:
        candidates = [
            {"name": name, "model": f"openai/{name}", "probe_model": name.upper()} for name in ("a", "b", "c")
        ]
        base = {
            "schema": "elle.policy/1", "name": "p", "probe": "x", "candidates": candidates, "safe_default": "c",
            "rule": {"kind": "gain", "thresholds": [0.1, 0.2]},
        }  # fmt: skip
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump(base | values), "utf-8")
        return path

    def test_a_policy_marks_the_step_between_the_two_models(self, tmp_path: Path) -> None:
        path = self.policy(tmp_path)
        assert read_threshold_marker(path, fake_probe(), "A", "B") == ThresholdMarker("p", 0.1)
        assert read_threshold_marker(path, fake_probe(), "B", "C") == ThresholdMarker("p", 0.2)

    @pytest.mark.parametrize(("weak", "strong"), [("A", "C"), ("B", "A"), ("A", "unknown")])
    def test_models_that_are_no_neighbours_have_no_threshold(self, tmp_path: Path, weak: str, strong: str) -> None:
        with pytest.raises(ConfigError, match="as neighbouring tiers"):
            read_threshold_marker(self.policy(tmp_path), fake_probe(), weak, strong)

    def test_another_rule_has_no_threshold(self, tmp_path: Path) -> None:
        policy = self.policy(tmp_path, rule={"kind": "fixed", "candidate": "a"})
        with pytest.raises(ConfigError, match="got fixed over A, B, C"):
            read_threshold_marker(policy, fake_probe(), "A", "B")


def test_mistakes_are_those_of_the_threshold_the_surest_first() -> None:
    outcomes, _ = make_outcomes(6, groups=1)
    scores = np.array([[0, 1], [0, 1], [1, 1], [1, 0], [0, 1], [1, 1]], dtype=float)
    gain = np.array([0.1, -0.3, 0.9, 0.6, 0.8, 0.2])
    scored = ScoredRouters(replace(outcomes, scores=scores), np.zeros((6, 2)), {PROBE: RouterScores(gain)})
    found = find_mistakes(scored, 0.5)
    assert [one.prompt_id for one in found.lost] == ["id-1", "id-0"]
    assert [one.prompt_id for one in found.wasted] == ["id-2", "id-3"]
    assert (found.n_lost, found.n_wasted) == (2, 2)


def test_more_labels_help_where_there_is_something_to_learn() -> None:
    outcomes, features = make_outcomes(2000)
    points = learning_points(outcomes, features, resamples=50)
    assert [point.n_labels for point in points] == [100, 300, 1000, 1600]
    assert points[-1].lift.value > points[0].lift.value
    assert points[-1].lift.low > 0

"""A row is a draw of the traffic: a prompt weighs as often as it is asked, and what is left out is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.tuning.certifying.calibration_set import calibration_set, whole_calibration_set
from router.tuning.certifying.preparation import prepare_tuning
from router.tuning.certifying.results.tuning_result import TuningResult
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from router.tuning.fitting.fit import fit_probe
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.holdout import Holdout, left_out, rows_to_fit
from tests.fakes import FakeEncoder
from tests.tuning_outcomes import MODELS, features, frequent_text, traffic, true_loss, write_traffic


def fitted(outcomes: Outcomes) -> DifficultyProbe:
    return fit_probe(outcomes, features(outcomes.texts), FakeEncoder().spec, title="data_folder").probe


@pytest.fixture(scope="module")
def probe() -> DifficultyProbe:
    """Fitted on 800 prompts, none of them the frequent one."""
    return fitted(traffic(800, seed=0, frequent=0.0, tag="fit"))


@pytest.fixture(scope="module")
def knows_it() -> DifficultyProbe:
    """Fitted on 800 draws, the frequent prompt among them."""
    return fitted(traffic(800, seed=0, tag="fit"))


def settings(limit: float = 0.05, **more: object) -> TuneSettings:
    return TuneSettings((Target("max_loss", limit),), models=MODELS, **more)  # type: ignore[arg-type]


def tuned(probe: DifficultyProbe, outcomes: Outcomes, limit: float = 0.05) -> tuple[TuningResult, float | None]:
    """Return the result, and the true loss of the policy if there is one."""
    inputs = prepare_tuning(probe, calibration_set(outcomes, probe), settings(limit))
    known = features(inputs.calibration.outcomes.texts)
    result, file = tune_policy(inputs, known, settings(limit), name="tuned", probe_place="probe")
    return result, None if file is None else true_loss(file.rule, probe)  # type: ignore[arg-type]


def test_a_prompt_that_is_30_percent_of_the_traffic_is_never_certified_away(probe: DifficultyProbe) -> None:
    losses = [tuned(probe, traffic(1000, seed=seed))[1] for seed in range(4)]
    assert all(loss is None or loss <= 0.05 for loss in losses)


def test_the_same_traffic_with_each_text_once_would_be_certified_wrongly(probe: DifficultyProbe) -> None:
    """What the test above is worth: merging equal texts makes a certificate of it that is false."""
    outcomes = traffic(1000, seed=0)
    first = np.unique(outcomes.texts, return_index=True)[1]
    result, loss = tuned(probe, outcomes.take(np.sort(first)))
    assert result.certified
    assert loss is not None
    assert loss > 0.25


def test_rows_of_one_text_are_draws_of_their_own(probe: DifficultyProbe) -> None:
    found = calibration_set(traffic(1000, seed=1), probe)
    times = Counter(found.outcomes.texts)[frequent_text()]
    assert len(found.outcomes) == 1000
    assert 240 < times < 360
    assert found.n_repeated == times - 1
    assert sum(report_share(found.outcomes)) == times


def report_share(outcomes: Outcomes) -> list[bool]:
    return [text == frequent_text() for text in outcomes.texts]


def test_draws_of_one_text_do_not_stand_together(probe: DifficultyProbe) -> None:
    """Bets would learn of one draw from another if they did."""
    hits = np.array(report_share(calibration_set(traffic(1000, seed=1), probe).outcomes))
    parts = [part.mean() for part in np.array_split(hits, 10)]
    assert max(parts) < 0.5
    assert min(parts) > 0.1


class TestHoldout:
    def test_what_is_left_out_is_like_the_traffic_and_the_fit_knows_no_text_of_it(self) -> None:
        outcomes = traffic(2000, seed=2)
        held_out = left_out(outcomes, 0.4)
        usable = rows_to_fit(outcomes, held_out)
        hits = np.array(report_share(outcomes))
        assert hits[held_out].mean() == pytest.approx(0.3, abs=0.05)
        texts = np.array(outcomes.texts)
        assert not set(texts[usable]) & set(texts[held_out])
        assert not hits[usable].any()

    def test_the_tuning_of_the_same_data_takes_those_rows_and_no_others(self) -> None:
        outcomes = traffic(2000, seed=2)
        held_out = left_out(outcomes, 0.4, 7)
        usable = rows_to_fit(outcomes, held_out)
        digests = tuple(source.sha256 for source in outcomes.sources)
        own = Holdout(0.4, 7, digests).recorded_in(fitted(outcomes.take(np.flatnonzero(usable))))
        found = calibration_set(outcomes, own)
        assert sorted(found.outcomes.ids) == sorted(np.array(outcomes.ids)[held_out])
        assert found.n_unused == int((~held_out & ~usable).sum()) > 200
        assert found.changed_share == 0.0
        assert len(found.seen) == usable.sum()

    def test_equal_ids_of_several_files_are_rows_of_their_own(self) -> None:
        one = traffic(400, seed=3, frequent=1.0)
        same = replace(one, ids=("the frequent one",) * 400)
        assert 0.3 < left_out(same, 0.4).mean() < 0.5


class TestWhatTheFitSaw:
    def test_leaving_out_a_tenth_of_the_traffic_is_refused(self, knows_it: DifficultyProbe) -> None:
        with pytest.raises(DataError, match=r"must be like the data; for 30% of the rows.*--calibration FILE"):
            calibration_set(traffic(1000, seed=10), knows_it)

    def test_less_is_told_in_report_and_certificate(self, knows_it: DifficultyProbe) -> None:
        outcomes = traffic(1000, seed=11, frequent=0.05)
        inputs = prepare_tuning(knows_it, calibration_set(outcomes, knows_it), settings(0.1))
        known = features(inputs.calibration.outcomes.texts)
        result, file = tune_policy(inputs, known, settings(0.1), name="tuned", probe_place="probe")
        times = sum(report_share(outcomes))
        assert result.n_seen_left_out == times
        assert result.changed_share == pytest.approx(times / 1000)
        assert any(note.startswith("WARNING: for 5") for note in result.notes)
        assert file is not None
        assert file.certificate is not None
        assert file.certificate.n_seen_left_out == times

    def test_a_split_of_the_fits_own_data_by_text_is_refused_where_texts_repeat(self) -> None:
        outcomes = traffic(2000, seed=5)
        others = np.flatnonzero(np.array([int(i.rsplit("-", 1)[1]) % 2 == 0 for i in outcomes.ids]))
        own = fitted(outcomes.take(others))
        with pytest.raises(DataError, match="must be like the data"):
            calibration_set(outcomes, own)

    def test_a_calibration_file_of_its_own_is_kept_whole(self, knows_it: DifficultyProbe) -> None:
        outcomes = traffic(1000, seed=12)
        found = whole_calibration_set(outcomes, knows_it, None)
        assert len(found.outcomes) == 1000
        assert found.n_seen_kept == sum(report_share(outcomes))
        inputs = prepare_tuning(knows_it, found, settings())
        known = features(found.outcomes.texts)
        result, file = tune_policy(inputs, known, settings(), name="tuned", probe_place="probe")
        assert any("are kept" in note for note in result.notes)
        assert file is None or true_loss(file.rule, knows_it) <= 0.05  # type: ignore[arg-type]

    def test_a_file_of_the_fit_is_no_calibration_file(self, knows_it: DifficultyProbe) -> None:
        with pytest.raises(DataError, match=r"it was fitted on fit-0\. Give that file as DATA"):
            whole_calibration_set(traffic(800, seed=0, tag="fit"), knows_it, None)


def test_several_labels_of_one_prompt_id_are_one_draw_with_their_mean(tmp_path: Path) -> None:
    outcomes = traffic(10, seed=0)
    path = write_traffic(tmp_path / "data.jsonl", outcomes)
    with path.open("a") as file:
        file.write(
            f'{{"prompt": "{outcomes.texts[0]}", "prompt_id": "{outcomes.ids[0]}", "model": "weak", "score": 1}}\n'
        )
    again = read_outcomes(path)
    row = again.ids.index(outcomes.ids[0])
    assert len(again) == 10
    assert again.n_averaged == 1
    assert again.scores[row, again.models.index("weak")] == pytest.approx((outcomes.scores[0, 0] + 1) / 2)


def test_labels_of_equal_texts_without_ids_are_not_paired_by_the_order_of_the_file(
    probe: DifficultyProbe, tmp_path: Path
) -> None:
    """In a file sorted by score the bad answers of both would meet, and their difference would seem to be none."""
    rng = np.random.default_rng(0)
    even = replace(traffic(600, seed=6, frequent=1.0), scores=rng.integers(0, 2, (600, 2)).astype(float))
    read = read_outcomes(write_traffic(tmp_path / "sorted.jsonl", even, ids=False)).select_models(MODELS)
    assert np.abs(np.diff(read.scores, axis=1)).mean() < 0.1
    found = calibration_set(read, probe).outcomes.scores
    assert np.abs(np.diff(found, axis=1)).mean() == pytest.approx(0.5, abs=0.07)
    assert found.mean(axis=0) == pytest.approx(even.scores.mean(axis=0))

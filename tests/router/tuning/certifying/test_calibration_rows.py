"""Which rows a certificate rests on, row by row, with a probe that knows only which texts it was fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes.errors import DataError
from probes.probe import DataSource, fingerprints
from router.tuning.certifying.calibration_set import (
    MIN_CALIBRATION,
    calibration_set,
    whole_calibration_set,
)
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.holdout import Holdout, left_out

FILE = DataSource("data.jsonl", "d" * 64, 1)


def rows(
    texts: Iterable[str], *, ids: Iterable[str] | None = None, seed: int = 0, source: DataSource = FILE
) -> Outcomes:
    texts = tuple(texts)
    n = len(texts)
    rng = np.random.default_rng(seed)
    tables = [rng.random((n, 2)) for _ in range(4)]
    names = tuple(ids) if ids is not None else tuple(f"id-{seed}-{i}" for i in range(n))
    return Outcomes(texts, names, ("",) * n, ("weak", "strong"), *tables, (source,))


def probe(fitted_on: Iterable[str] = ("old",), *, sources: tuple[DataSource, ...] = (), split: Any = None) -> Any:
    """Return the parts of a probe that a calibration set looks at."""
    metrics = {} if split is None else split
    return SimpleNamespace(fitted_on=fingerprints(fitted_on), card=SimpleNamespace(data=sources, metrics=metrics))


def new(n: int) -> list[str]:
    return [f"new {i}" for i in range(n)]


class TestOtherData:
    def test_every_row_that_the_fit_did_not_see_is_kept_and_the_others_are_counted(self) -> None:
        found = calibration_set(rows([*new(95), *["old"] * 5]), probe())
        assert sorted(found.outcomes.texts) == sorted(new(95))
        assert set(found.seen.texts) == {"old"}
        assert len(found.seen) == 5
        assert (found.n_seen_left_out, found.n_seen_kept, found.n_incomplete, found.n_unused) == (5, 0, 0, 0)
        assert found.changed_share == 0.05
        assert [ask.text for ask in found.asks] == list(found.outcomes.texts)

    def test_a_tenth_of_the_rows_may_be_missing_and_no_more(self) -> None:
        assert calibration_set(rows([*new(90), *["old"] * 10]), probe()).changed_share == 0.1
        with pytest.raises(DataError, match=r"for 11% of the rows they are not.*\(of 11 of 100 rows\)"):
            calibration_set(rows([*new(89), *["old"] * 11]), probe())

    def test_so_many_rows_are_enough_and_one_fewer_is_not(self) -> None:
        assert len(calibration_set(rows(new(MIN_CALIBRATION)), probe()).outcomes) == MIN_CALIBRATION == 50
        with pytest.raises(DataError, match=r"got 49: 3 of 52 were used in its fit\. Fit on another split"):
            calibration_set(rows([*new(49), *["old"] * 3]), probe())

    def test_draws_of_a_text_that_was_drawn_before_are_counted(self) -> None:
        found = calibration_set(rows([*new(60), "new 0", "new 0", "new 1"]), probe())
        assert found.n_repeated == 3

    def test_rows_without_a_score_of_every_model_are_left_out_and_counted(self) -> None:
        data = rows(new(60))
        data.scores[3, 0] = data.scores[4, 1] = data.scores[5] = np.nan
        found = calibration_set(data, probe())
        assert found.n_incomplete == 3
        assert not {"new 3", "new 4", "new 5"} & set(found.outcomes.texts)

    def test_where_no_row_has_every_score_each_model_says_how_many_it_has(self) -> None:
        data = rows(new(60))
        data.scores[:40, 0] = np.nan
        data.scores[30:, 1] = np.nan
        data.scores[:30, 0] = np.nan
        with pytest.raises(DataError, match=r"none has \(prompts scored: weak 20, strong 30\)"):
            calibration_set(data, probe())

    def test_a_probe_that_does_not_know_its_prompts_is_refused(self) -> None:
        with pytest.raises(DataError, match="must know which prompts it was fitted on"):
            calibration_set(rows(new(60)), probe(()))

    def test_asks_that_the_data_have_are_kept_as_they_are(self) -> None:
        plain = calibration_set(rows(new(60)), probe())
        longer = tuple(replace(ask, input_tokens_estimate=7777) for ask in plain.outcomes.asks)
        again = calibration_set(replace(plain.outcomes), probe())
        assert again.asks == plain.asks
        kept = calibration_set(replace(plain.outcomes, asks=longer), probe())
        assert {ask.input_tokens_estimate for ask in kept.asks} == {7777}


class TestOrder:
    def test_it_is_the_same_however_the_file_is_sorted_and_not_that_of_the_scores(self) -> None:
        data = rows(new(200))
        by_score = data.take(np.argsort(data.scores[:, 0]))
        one, two = calibration_set(data, probe()).outcomes, calibration_set(by_score, probe()).outcomes
        assert one.ids == two.ids
        np.testing.assert_array_equal(one.scores, two.scores)
        assert abs(np.corrcoef(np.arange(200), two.scores[:, 0])[0, 1]) < 0.2
        assert list(one.ids) != list(data.ids)

    def test_a_row_keeps_its_own_numbers(self) -> None:
        data = rows(new(80))
        found = calibration_set(data, probe()).outcomes
        for row, name in enumerate(found.ids):
            before = data.ids.index(name)
            for table in ("scores", "cost_usd", "input_tokens", "output_tokens"):
                np.testing.assert_array_equal(getattr(found, table)[row], getattr(data, table)[before])


class TestTheFitsOwnData:
    def test_the_rows_that_the_fit_left_out_are_taken_and_no_others(self) -> None:
        data = rows(new(400))
        split = Holdout(0.4, 7, (FILE.sha256,))
        metrics = split.recorded_in(carded()).card.metrics
        drawn = left_out(data, 0.4, 7)
        used = [text for text, out in zip(data.texts, drawn, strict=True) if not out]
        found = calibration_set(data, probe(used[:150], sources=(FILE,), split=metrics))
        assert set(found.outcomes.texts) == {text for text, out in zip(data.texts, drawn, strict=True) if out}
        assert (len(found.seen), found.n_unused) == (150, len(used) - 150)
        assert (found.n_seen_left_out, found.changed_share) == (0, 0.0)
        # The same split of another file says nothing about this one.
        other = rows(new(400), source=DataSource("other", "e" * 64, 1))
        assert len(calibration_set(other, probe(sources=(FILE,), split=metrics)).outcomes) == 400

    def test_a_split_by_somebody_else_counts_the_rows_of_repeated_texts(self) -> None:
        data = rows([*new(192), *["twice"] * 8, *[f"fit {i}" for i in range(100)]])
        fitted = [f"fit {i}" for i in range(100)]
        found = calibration_set(data, probe(fitted, sources=(FILE,)))
        assert len(found.outcomes) == 200
        assert (found.n_seen_left_out, len(found.seen)) == (0, 100)
        assert found.changed_share == pytest.approx(8 / 300)
        many = rows([*new(160), *["twice"] * 40, *fitted])
        with pytest.raises(DataError, match="for 13% of the rows"):
            calibration_set(many, probe(fitted, sources=(FILE,)))


def carded() -> Any:
    from tests.fakes import fake_probe

    return fake_probe()


class TestPairs:
    """Without ids nothing says which labels of equal texts are of one draw."""

    def made(self, text: str, n: int) -> list[str]:
        stem = hashlib.sha256(text.encode()).hexdigest()[:16]
        return [f"{stem}-{i}" for i in range(n)]

    def test_labels_of_equal_texts_without_ids_are_mixed_and_none_is_lost(self) -> None:
        data = rows(["same"] * 300, ids=self.made("same", 300))
        data.scores.sort(axis=0)
        found = calibration_set(data, probe()).outcomes
        np.testing.assert_array_equal(np.sort(found.scores, axis=0), data.scores)
        assert abs(np.corrcoef(found.scores.T)[0, 1]) < 0.2
        # What belongs to one answer stays together: its score and what it cost.
        for column in range(2):
            before = set(zip(data.scores[:, column], data.cost_usd[:, column], strict=True))
            assert set(zip(found.scores[:, column], found.cost_usd[:, column], strict=True)) == before

    def test_labels_with_ids_are_never_mixed(self) -> None:
        data = rows(["same"] * 300)
        data.scores.sort(axis=0)
        found = calibration_set(data, probe()).outcomes
        assert np.corrcoef(found.scores.T)[0, 1] > 0.9

    def test_labels_that_are_missing_leave_as_many_pairs_as_the_rarer_model_can_make(self) -> None:
        data = rows(["same"] * 100, ids=self.made("same", 100))
        data.scores[60:, 0] = np.nan
        found = calibration_set(data, probe())
        assert len(found.outcomes) == 60
        np.testing.assert_array_equal(np.sort(found.outcomes.scores[:, 0]), np.sort(data.scores[:60, 0]))

    def test_the_data_that_were_given_are_not_changed(self) -> None:
        data = rows(["same"] * 100, ids=self.made("same", 100))
        before = data.scores.copy()
        calibration_set(data, probe())
        np.testing.assert_array_equal(data.scores, before)


class TestFileOfItsOwn:
    def test_it_is_kept_whole_and_what_the_fit_saw_is_counted(self) -> None:
        data = rows([*new(60), *["old"] * 40])
        found = whole_calibration_set(data, probe(), None)
        assert sorted(found.outcomes.texts) == sorted(data.texts)
        assert (found.n_seen_kept, found.n_seen_left_out, found.n_unused, len(found.seen)) == (40, 0, 0, 0)
        assert (found.changed_share, found.n_repeated) == (0.0, 39)

    def test_incomplete_rows_are_counted_and_so_many_are_enough(self) -> None:
        data = rows(new(52))
        data.scores[:2, 0] = np.nan
        assert whole_calibration_set(data, probe(), None).n_incomplete == 2
        data.scores[2, 1] = np.nan
        with pytest.raises(DataError, match="at least 50 prompts with a score of every model, got 49"):
            whole_calibration_set(data, probe(), None)

    def test_rows_of_the_fit_beside_it_are_those_that_it_saw(self) -> None:
        beside = rows([*["old"] * 3, *new(7)], seed=1)
        found = whole_calibration_set(rows(new(60)), probe(), beside)
        assert found.seen.texts == ("old",) * 3
        assert len(found.outcomes) == 60

    def test_a_file_of_the_fit_is_refused_by_name(self) -> None:
        with pytest.raises(DataError, match=r"it was fitted on data\.jsonl\. Give that file as DATA"):
            whole_calibration_set(rows(new(60)), probe(sources=(FILE,)), None)

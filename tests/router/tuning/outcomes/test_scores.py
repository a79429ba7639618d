"""Tests of imported scores: the meaning of a score is never guessed, and the import says what it read as score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probes.errors import DataError
from router.cli.main import cli
from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.scores import ScoreOptions, parse_score_map
from router.tuning.outcomes.adapters.summary import ImportSummary
from router.tuning.outcomes.datasets import read_outcomes


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def generation(key: int, **values: Any) -> dict[str, Any]:
    base = {"id": f"g{key}", "trace_id": f"t{key}", "type": "GENERATION", "input": f"Question {key}", "model": "m"}
    return base | values


def langfuse(folder: Path, scores: list[dict[str, Any]], **options: Any) -> tuple[ImportSummary, dict[str, float]]:
    """Import one generation for each of these scores."""
    rows = [generation(k) for k in range(len(scores))]
    rows += [{"id": f"s{k}", "name": "quality", "observation_id": f"g{k}"} | one for k, one in enumerate(scores)]
    return bring("langfuse", write(folder / "in.jsonl", rows), **options)


def numbers(folder: Path, values: list[Any], **options: Any) -> tuple[ImportSummary, dict[str, float]]:
    """Import a table of one model with these cells."""
    rows = [{"prompt": f"Question {k}", "m": value} for k, value in enumerate(values)]
    return bring("routellm", write(folder / "in.jsonl", rows), **options)


def bring(kind: str, path: Path, **options: Any) -> tuple[ImportSummary, dict[str, float]]:
    out = path.parent / "out.jsonl"
    summary = import_outcomes(kind, [path], out, ImportOptions(force=True, **options))
    found = read_outcomes(out)
    return summary, dict(zip(found.texts, found.scores[:, 0].tolist(), strict=True))


def category(word: str, index: float) -> dict[str, Any]:
    return {"data_type": "CATEGORICAL", "value": index, "string_value": word}


class TestLangfuseDataTypes:
    def test_the_index_of_a_category_is_never_taken_as_quality(self, tmp_path: Path) -> None:
        scores = [category("good", 0), category("bad", 1), category("bad", 1)]
        with pytest.raises(DataError, match=r"got the words bad \(2\), good \(1\).*--score-map 'bad=\?,good=\?'"):
            langfuse(tmp_path, scores)
        summary, found = langfuse(tmp_path, scores, score_map=["good=1,bad=0"])
        assert found == {"Question 0": 1.0, "Question 1": 0.0, "Question 2": 0.0}
        assert summary.score.sources == {"scores 'quality' of data type CATEGORICAL": 3}
        assert summary.score.mapped_by == "--score-map"
        examples = [(one.written, one.read_as) for one in summary.score.examples]
        assert sorted(examples) == [("bad", 0.0), ("bad", 0.0), ("good", 1.0)]

    def test_a_category_that_looks_like_a_number_needs_a_map_too(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="got the words 1"):
            langfuse(tmp_path, [category("1", 0), category("0", 1)])

    def test_free_text_is_no_score(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"got the words fine \(1\)"):
            langfuse(tmp_path, [{"data_type": "TEXT", "value": 0, "string_value": "fine"}])

    @pytest.mark.parametrize(
        ("score", "quality"),
        [
            ({"data_type": "BOOLEAN", "value": 1, "string_value": "True"}, 1.0),
            ({"data_type": "BOOLEAN", "value": 0}, 0.0),
            ({"dataType": "BOOLEAN", "value": 0.0, "stringValue": "False"}, 0.0),
            ({"data_type": "NUMERIC", "value": 0.25, "string_value": None}, 0.25),
            ({"data_type": "NUMERIC", "value": "0.25"}, 0.25),
            ({"value": 0.75}, 0.75),
            ({"value": True}, 1.0),
            ({"stringValue": "true", "value": None}, 1.0),
        ],
    )
    def test_truth_values_and_numbers_are_read_as_they_are(
        self, tmp_path: Path, score: dict[str, Any], quality: float
    ) -> None:
        assert langfuse(tmp_path, [score])[1] == {"Question 0": quality}

    @pytest.mark.parametrize("values", [(0, 1), (1.0, 0.0), ("1", "0"), (1, 1)])
    def test_whole_numbers_without_a_data_type_may_be_indices_and_are_asked_about(
        self, tmp_path: Path, values: tuple[Any, ...]
    ) -> None:
        scores = [{"value": value} for value in values]
        with pytest.raises(DataError, match=r"have no data type, so they may be qualities or indices.*--score-range"):
            langfuse(tmp_path, scores)
        found = langfuse(tmp_path, scores, score_range=(0.0, 1.0))[1]
        assert found == {f"Question {k}": float(value) for k, value in enumerate(values)}
        mapped = langfuse(tmp_path, scores, score_map=["0=1,1=0"])[1]
        assert mapped == {f"Question {k}": float(float(value) == 0) for k, value in enumerate(values)}

    def test_a_category_that_the_map_forgets_is_asked_for_and_may_be_skipped(self, tmp_path: Path) -> None:
        scores = [category("good", 2), category("bad", 1), category("unsure", 0)]
        with pytest.raises(DataError, match=r"--score-map must have every score; missing: unsure \(1\)"):
            langfuse(tmp_path, scores, score_map=["good=1", "bad=0"])
        summary, found = langfuse(tmp_path, scores, score_map=["Good=1,BAD=0,unsure=skip"])
        assert found == {"Question 0": 1.0, "Question 1": 0.0}
        assert summary.left_out == {"score that --score-map skips": 1}

    @pytest.mark.parametrize(
        "name", ["hallucination", "is_toxic", "errors", "refusal", "rejected", "Mistakes", "thumbs_down"]
    )
    def test_a_name_of_which_more_is_worse_is_asked_about(self, tmp_path: Path, name: str) -> None:
        scores = [
            {"name": name, "data_type": "NUMERIC", "value": 1.0},
            {"name": name, "data_type": "NUMERIC", "value": 0},
        ]
        with pytest.raises(DataError, match="sounds as if more of it were worse"):
            langfuse(tmp_path, scores)
        assert langfuse(tmp_path, scores, score_range=(1.0, 0.0))[1] == {"Question 0": 0.0, "Question 1": 1.0}
        assert langfuse(tmp_path, scores, score_range=(0.0, 1.0))[1] == {"Question 0": 1.0, "Question 1": 0.0}

    def test_a_score_without_a_name_does_not_ask_for_a_choice(self, tmp_path: Path) -> None:
        summary, found = langfuse(tmp_path, [{"value": 1.0, "data_type": "NUMERIC"}, {"value": 0.5, "name": None}])
        assert found == {"Question 0": 1.0}
        assert "scores without a name: 1" in summary.notes

    def test_a_table_of_the_interface_holds_scores_in_columns(self, tmp_path: Path) -> None:
        rows = [generation(0, quality=[0.5]), generation(1, quality="[0.25]"), generation(2, quality=None)]
        summary, found = bring("langfuse", write(tmp_path / "in.jsonl", rows), score_name="quality")
        assert found == {"Question 0": 0.5, "Question 1": 0.25}
        assert summary.left_out == {"without a score": 1}
        words = [generation(0, quality=["good"]), generation(1, quality=["bad"])]
        with pytest.raises(DataError, match="got the words"):
            bring("langfuse", write(tmp_path / "in.jsonl", words), score_name="quality")


class TestScales:
    @pytest.mark.parametrize(
        ("values", "span", "qualities"),
        [
            ([1, 3, 5], (1.0, 5.0), [0.0, 0.5, 1.0]),
            ([100, 0, 50], (0.0, 100.0), [1.0, 0.0, 0.5]),
            (["5%", "10 %"], (0.0, 10.0), [0.5, 1.0]),
            ([-1, 1], (-1.0, 1.0), [0.0, 1.0]),
            ([1, 0], (1.0, 0.0), [0.0, 1.0]),
        ],
    )
    def test_another_scale_is_refused_until_it_is_named(
        self, tmp_path: Path, values: list[Any], span: tuple[float, float], qualities: list[float]
    ) -> None:
        # These are known without a scale, which then says something else.
        if values not in ([1, 0], ["5%", "10 %"]):
            with pytest.raises(DataError, match=r"--score-(range|map)"):
                numbers(tmp_path, values)
        _, found = numbers(tmp_path, values, score_range=span)
        assert list(found.values()) == pytest.approx(qualities)

    def test_the_refusal_names_the_extremes_with_their_lines(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            numbers(tmp_path, [1, 0, 4, 5, 2])
        path = tmp_path / "in.jsonl"
        assert f"3 of 5 do not: 2 in {path}, line 5, 5 in {path}, line 4" in str(caught.value)
        assert not (tmp_path / "out.jsonl").exists()

    def test_a_value_outside_the_named_range_is_an_odd_row(self, tmp_path: Path) -> None:
        summary, found = numbers(tmp_path, [1, 5, 55], score_range=(1.0, 5.0))
        assert list(found.values()) == [0.0, 1.0]
        assert summary.left_out == {"score outside --score-range": 1}

    def test_truth_values_written_as_text_are_read(self, tmp_path: Path) -> None:
        summary, found = numbers(tmp_path, ["true", "False", "TRUE", True, None, "n/a"])
        assert list(found.values()) == [1.0, 0.0, 1.0, 1.0]
        assert summary.left_out == {"without a score": 1}

    def test_thumbs_are_known_and_a_map_may_say_otherwise(self, tmp_path: Path) -> None:
        assert list(numbers(tmp_path, ["👍", "👎"])[1].values()) == [1.0, 0.0]
        with pytest.raises(DataError, match=r"got the words fine \(1\)"):
            numbers(tmp_path, ["👍", "👎", 1, "fine"])
        assert list(numbers(tmp_path, ["👍", "👎", 1], score_map=["👍=1,👎=0,1=.5"])[1].values()) == [1.0, 0.0, 0.5]

    def test_a_word_that_stands_often_among_numbers_is_not_dropped(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"got the words failed \(3\)"):
            numbers(tmp_path, [1] * 97 + ["failed"] * 3)

    def test_none_is_no_value_among_numbers_and_a_word_among_words(self, tmp_path: Path) -> None:
        assert list(numbers(tmp_path, [1, 0, "none", "N/A"])[1].values()) == [1.0, 0.0]
        harm = ["none", "minor", "major", "none", 1]
        with pytest.raises(DataError, match=r"got the words none \(2\), minor \(1\), major \(1\)"):
            numbers(tmp_path, harm)
        with pytest.raises(DataError, match=r"missing: none \(2\)"):
            numbers(tmp_path, harm, score_map=["minor=.5,major=0,1=1"])
        _, found = numbers(tmp_path, harm, score_map=["none=1,minor=.5,major=0,1=1"])
        assert list(found.values()) == [1.0, 0.5, 0.0, 1.0, 1.0]
        with pytest.raises(DataError, match=r"got the words none \(2\)"):
            langfuse(tmp_path, [category("none", 0), category("none", 0)])

    def test_a_word_that_stands_twice_is_asked_about_however_many_numbers_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"got the words failed \(2\)"):
            numbers(tmp_path, [1, 0] * 1100 + ["failed"] * 2)

    def test_a_single_word_among_many_numbers_is_an_odd_row(self, tmp_path: Path) -> None:
        summary, found = numbers(tmp_path, [1, 0] * 20 + ["#REF!"])
        assert len(found) == 40
        assert summary.left_out == {"score that is no number": 1}

    def test_equal_scores_are_said(self, tmp_path: Path) -> None:
        assert any("every score is 1" in note for note in numbers(tmp_path, [1, 1])[0].notes)


def test_the_summary_says_what_was_read_with_range_and_examples(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": f"Question {k}", "m": v} for k, v in enumerate([1, 2, 4, 5])])
    command = ["import", "routellm", str(path), "--out", str(tmp_path / "out.jsonl"), "--score-range", "1", "5"]
    done = CliRunner().invoke(cli, [*command, "--json"], catch_exceptions=False)
    score = json.loads(done.stdout)["score"]
    assert (score["low"], score["high"], score["mean"]) == (0.0, 1.0, 0.5)
    assert (score["written_low"], score["written_high"]) == (1.0, 5.0)
    assert score["examples"] == [
        {"where": f"{path}, line 1", "written": "1", "read_as": 0.0},
        {"where": f"{path}, line 4", "written": "5", "read_as": 1.0},
        {"where": f"{path}, line 3", "written": "4", "read_as": 0.75},
    ]
    shown = CliRunner().invoke(cli, [*command, "--force"], catch_exceptions=False).stdout
    assert "Read as score, through --score-range: cells of the columns named like the models (4)" in shown
    assert "line 4: 5 is 1" in shown


@pytest.mark.parametrize("given", ["good", "good=2", "good=-1", "good=nan", "=", "good=1,good=0", "a=1,b=x"])
def test_a_map_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(DataError, match="--score-map must"):
        parse_score_map([given])


def test_a_map_reads_words_with_commas_equals_signs_and_any_case() -> None:
    assert parse_score_map(["Yes, fully=1", "a=b=0.5", "n/a=skip"]) == {"yes, fully": 1.0, "a=b": 0.5, "n/a": None}


def test_words_go_by_the_map_and_numbers_by_the_range_beside_it(tmp_path: Path) -> None:
    values = [0, 50, 100, "failed", "failed"]
    with pytest.raises(DataError, match=r"missing: 0 \(1\), 50 \(1\), 100 \(1\).*Numbers may be left to --score-range"):
        numbers(tmp_path, values, score_map=["failed=0"])
    summary, found = numbers(tmp_path, values, score_map=["failed=0"], score_range=(0.0, 100.0))
    assert list(found.values()) == [0.0, 0.5, 1.0, 0.0, 0.0]
    assert summary.score.mapped_by == "--score-map and --score-range"


def test_a_list_or_an_object_is_an_odd_score(tmp_path: Path) -> None:
    summary, found = numbers(tmp_path, [1, 0, [1], {"value": 1}])
    assert list(found.values()) == [1.0, 0.0]
    assert summary.left_out == {"score that is no number": 2}


def test_a_failure_in_the_metadata_of_a_log_is_a_failure_and_not_a_missing_score(tmp_path: Path) -> None:
    base = {"model": "m", "call_type": "acompletion"}
    rows = [
        base | {"request_id": str(k), "messages": [{"role": "user", "content": f"Question {k}"}], "metadata": metadata}
        for k, metadata in enumerate([{"score": 0}, {"score": False}, {"requester_metadata": {"score": 0.0}}])
    ]
    _, found = bring("litellm-spend-logs", write(tmp_path / "in.jsonl", rows))
    assert found == {"Question 0": 0.0, "Question 1": 0.0, "Question 2": 0.0}


def test_empty_ranges_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be the worst and the best"):
        numbers(tmp_path, [1], score_range=(1.0, 1.0))


def test_a_range_of_one_score_is_told_as_it_was_written() -> None:
    with pytest.raises(DataError, match=r"two different numbers; got 1 1\.$"):
        ScoreOptions(span=(1.0, 1.0))

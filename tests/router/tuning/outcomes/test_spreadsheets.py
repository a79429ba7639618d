"""Spreadsheets as people save them: their encodings, names of columns, and ways to write a grade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probes.errors import DataError
from router.cli.main import cli
from router.tuning.outcomes.adapters.spelled_scores import grade_of, parse_scale, percentage_of, thumb_of
from router.tuning.outcomes.records import read_rows
from tests.router.tuning.outcomes.bringing import imported


def sheet(folder: Path, text: str, encoding: str = "utf-8", name: str = "sheet.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


class TestFiles:
    def test_windows_semicolons_and_decimal_commas(self, tmp_path: Path) -> None:
        text = "Prompt;Model;Score\r\nWie groß ist „Köln“?;klein;0,5\r\nWarum?;groß;1\r\n"
        path = sheet(tmp_path, text, "cp1252")
        summary, found = imported(None, path)
        assert found.texts == ("Wie groß ist „Köln“?", "Warum?")
        assert (summary.format, summary.models) == ("table", {"groß": 1, "klein": 1})
        assert sorted(score for row in found.scores.tolist() for score in row if score == score) == [0.5, 1.0]
        assert summary.notes[0].startswith(
            "sheet.csv is read as Windows-1252, because it is not UTF-8; if the word 'groß'"
        )
        with pytest.raises(DataError, match="must be text in UTF-8, and is not at byte"):
            read_rows(path)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_a_byte_order_mark_says_the_encoding(self, tmp_path: Path, encoding: str) -> None:
        summary, found = imported(None, sheet(tmp_path, "sep=;\nprompt;model;score\nGröße?;m;1\n", encoding))
        assert (found.texts, summary.notes[1:]) == (("Größe?",), ())

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "sheet.csv"
        path.write_bytes(b"prompt,model,score\nGr\xf6\x01\x02\xdfe,m,1\n")
        with pytest.raises(DataError, match="must be text in UTF-8"):
            imported("table", path)

    def test_a_spreadsheet_that_is_no_csv_says_what_to_do(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "PK", name="sheet.xlsx")
        with pytest.raises(DataError, match="Save it as CSV first"):
            imported("table", path)


class TestColumns:
    def test_a_sheet_whose_columns_have_other_names_is_refused_with_the_option_to_give(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds Frage, Modell, Note\. Name the column of a table with --column"):
            imported(None, sheet(tmp_path, "Frage;Modell;Note\nWarum?;klein;1\n"))

    def test_the_worst_grade_of_a_scale_that_falls_is_nothing_and_not_less(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "prompt;model;score\nWhy?;m;5,0\nHow?;m;1,0\n")
        done = CliRunner().invoke(cli, ["import", str(path), "--scale", "5..1", "--out", str(tmp_path / "o.jsonl")])
        assert "line 2: 5,0 is 0\n" in done.stdout

    def test_capital_letters_and_blanks_do_not_count(self, tmp_path: Path) -> None:
        text = "Question,Model Name,RATING,Session ID,Prompt-ID\nWhy?,m,1,s,7\n"
        summary, found = imported(None, sheet(tmp_path, text))
        assert (found.ids, found.models, summary.score.sources) == (("7",), ("m",), {"column 'rating'": 1})

    def test_columns_of_other_names_are_named(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "Frage,Modell,Note\nWarum?,m,2\n")
        columns = ["prompt=Frage", "model=Modell"]
        _, found = imported(None, path, columns=columns, score_name="Note", score_range=(6, 1))
        assert (found.texts, found.models, found.scores.tolist()) == (("Warum?",), ("m",), [[0.8]])

    @pytest.mark.parametrize(
        ("header", "options", "match"),
        [
            ("prompt,modle,score", {}, "must say in a column which model answered .* Column 'modle' is nearly 'model'"),
            ("prompt,model,scroe", {}, "must have a score in a column; .* Column 'scroe' is nearly 'score'"),
            ("prompt,model,x", {"score_name": "y"}, r"--score-name must be one of .*; got 'y'"),
            ("prompt,model,Note", {"score_name": "Noten"}, r"got 'Noten'\. Did you mean 'Note'\?"),
            ("prompt,model,score", {"columns": ["model=Model"]}, "must have the column 'Model'; it holds prompt"),
            ("prompt,model,score", {"columns": ["modl=x"]}, "one of .* Column 'model' is nearly 'modl'"),
            ("prompt,model,score", {"columns": ["model"]}, "--column must say NAME=COLUMN"),
        ],
    )  # fmt: skip
    def test_what_is_missing_is_named_with_the_nearest_column(
        self, tmp_path: Path, header: str, options: dict[str, Any], match: str
    ) -> None:
        with pytest.raises(DataError, match=match):
            imported("table", sheet(tmp_path, f"{header}\nWhy?,m,1\n"), **options)

    def test_of_several_columns_that_may_be_the_score_one_must_be_chosen(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "prompt,model,correct,rating\nWhy?,m,1,0\n")
        with pytest.raises(DataError, match=r"several scores: correct \(1\), rating \(1\)"):
            imported(None, path)
        assert imported(None, path, score_name="correct")[1].scores.tolist() == [[1.0]]

    def test_columns_are_for_tables_and_votes(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "doc_id,arguments,resps\n1,Why?,a\n")
        with pytest.raises(DataError, match="--column is for tables and votes; the format of these files is lm-eval"):
            imported("lm-eval", path, columns=["prompt=x"])


class TestGrades:
    @pytest.mark.parametrize(
        ("written", "quality"),
        [("👍", 1), ("👎🏽", 0), ("Thumbs up", 1), ("thumbs_down", 0), ("85%", 0.85), ("12,5 %", 0.125)],
    )
    def test_thumbs_and_percentages_are_known(self, tmp_path: Path, written: str, quality: float) -> None:
        _, found = imported(None, sheet(tmp_path, f'prompt,model,score\nWhy?,m,"{written}"\n'))
        assert found.scores.tolist() == [[quality]]

    @pytest.mark.parametrize("written", ["4", "4 - agree", "4 (good)", "4: fine", "4 = often", "4/5", "4 of 5", "4,0"])
    def test_a_likert_scale_is_read_with_or_without_its_labels(self, tmp_path: Path, written: str) -> None:
        path = sheet(tmp_path, f'prompt,model,score\nWhy?,m,"{written}"\n')
        assert imported(None, path, score_range=(1, 5))[1].scores.tolist() == [[0.75]]

    @pytest.mark.parametrize("written", ["4 - agree", "4/5", "agree"])
    def test_without_a_scale_a_labelled_grade_is_asked_about_with_its_column(
        self, tmp_path: Path, written: str
    ) -> None:
        path = sheet(tmp_path, f'prompt,model,rating\nWhy?,m,"{written}"\n')
        with pytest.raises(DataError, match=rf"words {written} .*, first in .*sheet\.csv, line 2, column 'rating'"):
            imported(None, path)

    def test_a_word_that_the_map_nearly_has_is_named(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "prompt,model,score\nWhy?,m,good\nHow?,m,godo\n")
        with pytest.raises(DataError, match=r"missing: godo \(1\), .*The map has 'good', which is nearly the same"):
            imported(None, path, score_map=["good=1"])

    def test_a_map_goes_before_what_everybody_knows(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "prompt,model,score\nWhy?,m,👍\n")
        assert imported(None, path, score_map=["👍=0.5"])[1].scores.tolist() == [[0.5]]

    def test_the_parts(self) -> None:
        assert [thumb_of(value) for value in ("👍", ":thumbsdown:", "up", 1, None)] == [1.0, 0.0, None, None, None]
        assert [percentage_of(value) for value in ("5%", " 5 % ", "%", "5", 5)] == [5.0, 5.0, None, None, None]
        assert [grade_of(value, 5) for value in ("4/10", "x - 4", "4-5", "4 stars", 4)] == [None] * 5
        assert [parse_scale(text) for text in ("1..5", " 5 .. 1 ", "0,5..1", "1-5", "..5")] == [
            (1, 5), (5, 1), (0.5, 1), None, None,
        ]  # fmt: skip


class TestCommand:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(cli, ["import", *map(str, arguments)])

    def test_a_scale_is_given_as_people_write_it(self, tmp_path: Path) -> None:
        path, out = sheet(tmp_path, "prompt,model,score\nWhy?,m,2\n"), tmp_path / "out.jsonl"
        done = self.run(path, "--scale", "1..5", "--out", out)
        assert done.exit_code == 0, done.output
        assert "Read as score, through --score-range: column 'score' (1)." in " ".join(done.stdout.split())
        for wrong in (("--scale", "1-5"), ("--scale", "1..5", "--score-range", "1", "5")):
            assert self.run(path, *wrong, "--out", out, "--force").exit_code == 2

    def test_a_word_that_is_neither_kind_nor_file_is_answered_with_the_nearest_kind(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "prompt,model,score\nWhy?,m,1\n")
        done = self.run("tabel", path, "--out", tmp_path / "out.jsonl")
        assert (done.exit_code, "got 'tabel'. Did you mean table?" in done.output) == (1, True)

    def test_a_table_of_preferences_becomes_two_rows_for_each_vote(self, tmp_path: Path) -> None:
        path = sheet(tmp_path, "Prompt;Model A;Model B;Winner\nWhy?;small;large;Model B\nHow?;small;large;tie\n")
        _, found = imported(None, path)
        assert (found.models, found.scores.tolist()) == (("large", "small"), [[1, 0], [0.5, 0.5]])

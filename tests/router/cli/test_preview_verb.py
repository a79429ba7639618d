"""`elle preview` prints text, JSON and a page that fetches nothing, and says in one line what is wrong."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from router.cli.main import cli
from tests.router.tuning.previewing.logs import real_policy, session_rows, write_log

pytestmark = pytest.mark.usefixtures("_real_encoder")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["preview", *map(str, arguments)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    markup = {"prompt": "<script>alert(1)</script> [bold]what does this tag do?[/bold]", "group": "<b>&"}
    return write_log(tmp_path / "log.jsonl", *(row | {"group": "chat"} for row in session_rows()), markup)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return real_policy(tmp_path)


def test_text_and_json_say_the_same(log: Path, policy: Path) -> None:
    text, found = run(log, "--policy", policy), run(log, "--policy", policy, "--json")
    assert (text.exit_code, found.exit_code) == (0, 0), text.output + found.output
    answer = json.loads(found.stdout)
    assert f"Of {answer['n']:,} requests" in text.stdout
    assert f"{answer['ways'][0]['shares']['small']:.1%} by small" in " ".join(text.stdout.split())
    assert "[bold]what does this tag do?[/bold]" in text.stdout
    assert all(sentence.split()[0] in text.stdout for sentence in answer["assumed"])


def test_no_text_shows_no_prompt(log: Path, policy: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(log, "--policy", policy, "--no-text", "--html", page)
    assert done.exit_code == 0, done.output
    assert "what does this tag do" not in done.stdout + page.read_text("utf-8")


def test_the_page_holds_everything_itself_and_escapes_the_log(log: Path, policy: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run(log, "--policy", policy, "--html", page).exit_code == 0
    html = page.read_text("utf-8")
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(html)
    names = [tag for tag, _ in tags]
    assert not {"script", "link", "iframe"} & set(names)
    sources = [attrs["src"] or "" for _, attrs in tags if "src" in attrs]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<h2>") >= 6
    again = run(log, "--policy", policy, "--html", page)
    assert again.exit_code == 1
    assert "give --force to replace it" in again.output
    assert run(log, "--policy", policy, "--html", page, "--force").exit_code == 0
    over = run(log, "--policy", policy, "--html", log, "--force")
    assert "is read by the command and cannot be replaced" in over.output


def test_a_profile_is_previewed_in_place_of_the_policy(log: Path, tmp_path: Path) -> None:
    policy = real_policy(tmp_path, profiles={"cheap": {"rule": {"kind": "fixed", "candidate": "small"}}})
    answer = json.loads(run(log, "--policy", policy, "--profile", "cheap", "--json").stdout)
    assert (answer["policy"], answer["ways"][0]["shares"]["small"]) == ("previewed:cheap", 1.0)
    wrong = run(log, "--policy", policy, "--profile", "chep")
    assert "--profile must be a profile of the policy (cheap), got 'chep'" in wrong.output


def test_a_probe_of_other_candidates_is_refused(log: Path, policy: Path) -> None:
    file = yaml.safe_load(policy.read_text("utf-8"))
    file["candidates"][0]["probe_model"] = "another"
    policy.write_text(yaml.safe_dump(file), "utf-8")
    done = run(log, "--policy", policy)
    assert done.exit_code == 1
    assert "every candidate of policy 'previewed' must be a model of its probe" in done.output


def test_broken_lines_are_left_out_and_named(log: Path, policy: Path) -> None:
    log.write_text(log.read_text("utf-8") + "{torn\n", "utf-8")
    done = run(log, "--policy", policy)
    assert done.exit_code == 0
    assert "Left out, unreadable row: 1." in done.stdout
    assert f"line {len(session_rows()) + 2}: unreadable row" in " ".join(done.stdout.split())


def test_columns_of_a_spreadsheet_are_named(tmp_path: Path, policy: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_bytes("Frage;Kosten\nWie groß ist Köln?;0,5\n".encode("cp1252"))
    columns = ("--column", "prompt=Frage", "--column", "cost_usd=Kosten")
    answer = json.loads(run(sheet, "--policy", policy, *columns, "--json").stdout)
    assert (answer["format"], answer["n"], answer["paid"]["usd"]) == ("table", 1, 0.5)
    assert "--column is for tables" in run(sheet, "--policy", policy, *columns, "--format", "votes").output


def test_an_empty_log_is_refused(tmp_path: Path, policy: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", "utf-8")
    done = run(empty, "--policy", policy)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "must hold prompts; it holds no rows" in done.output

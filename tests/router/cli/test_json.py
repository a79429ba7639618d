"""With --json stdout holds one object whose first keys are the same for every verb, however the verb ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from tests.router.cli.test_help import VERBS
from tests.router.cli.test_outputs import arguments_of

IN_JSON = {words: verb for words, verb in VERBS.items() if any("--json" in one.opts for one in verb.params)}


def answer_of(result: Result) -> dict[str, Any]:
    """Return the one JSON object on stdout, whose keys begin as they must."""
    found = json.loads(result.stdout)
    assert list(found)[:2] == ["verb", "exit_status"]
    assert found["exit_status"] == result.exit_code
    assert ("error" in found) == (result.exit_code in (1, 2))
    return found


# These two do their work without any file, which takes seconds; tests of their own read their JSON.
@pytest.mark.parametrize("words", sorted(IN_JSON.keys() - {("doctor",), ("export-encoder",)}), ids=" ".join)
def test_every_verb_answers_with_one_object_also_if_it_fails(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("no data at all")
    # A service of somebody else may listen on the usual ports.
    places = {"--out": str(tmp_path / "out.npy"), "--url": "http://127.0.0.1:1", "--address": "127.0.0.1:1"}
    there = [one.opts[0] for one in IN_JSON[words].params if one.opts[0] in places]
    more = [word for option in there for word in (option, places[option])]
    result = CliRunner().invoke(cli, [*words, *arguments_of(IN_JSON[words], tmp_path / "data"), *more, "--json"])
    found = answer_of(result)
    assert found["verb"] == " ".join(words)
    if "error" in found:
        # People read on stderr what programs read on stdout.
        assert found["error"] in result.stderr


def test_an_answer_says_where_it_was_written_and_lists_have_names(tmp_path: Path) -> None:
    tokens = ["--tokens", str(tmp_path / "tokens.json"), "--json"]
    made = answer_of(CliRunner().invoke(cli, ["token", "create", "team", *tokens]))
    listed = answer_of(CliRunner().invoke(cli, ["token", "list", *tokens]))
    assert (made["verb"], [one["name"] for one in listed["tokens"]]) == ("token create", ["team"])
    store = ["--store", str(tmp_path / "store"), "--json"]
    policy = tmp_path / "policy.yaml"
    policy.write_text(answer_of(CliRunner().invoke(cli, ["policy", "new", "--json"]))["text"], "utf-8")
    changed = answer_of(CliRunner().invoke(cli, ["policy", "activate", str(policy), "--reason", "first", *store]))
    assert answer_of(CliRunner().invoke(cli, ["policy", "list", *store]))["versions"][0]["id"] == changed["after"]
    assert answer_of(CliRunner().invoke(cli, ["policy", "history", *store]))["changes"][0]["reason"] == "first"
    shown = answer_of(CliRunner().invoke(cli, ["policy", "show", "default", "--out", str(tmp_path / "new"), *store]))
    assert shown["out"] == str(tmp_path / "new")


@pytest.mark.parametrize(
    ("words", "verb", "said"),
    [
        ("fit data.jsonl --out probe --bogus --json", "fit", "'--bogus'"),
        ("policy actvate my.yaml --json", "policy", "Did you mean 'activate'?"),
        ("decied --json", "", "Did you mean 'decide'?"),
        ("serve --htpp 8080 --json", "serve", "'--http'"),
    ],
)
def test_wrong_words_before_json_are_told_in_json_too(words: str, verb: str, said: str) -> None:
    found = answer_of(CliRunner().invoke(cli, words.split()))
    assert (found["verb"], found["exit_status"]) == (verb, 2)
    assert said in found["error"]


def test_a_value_that_an_option_cannot_have_is_told_in_json_too() -> None:
    found = answer_of(CliRunner().invoke(cli, ["evaluate", "probe", "--resamples", "many", "--json"]))
    assert found["exit_status"] == 2
    assert "'many'" in found["error"]

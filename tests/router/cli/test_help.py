"""`--help` of every verb: options stand under titles, each once and with a text, in words that need no second guess."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from router.cli.main import PLACES, TITLES, cli
from router.cli.options import GroupedCommand


def verbs(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every verb with its words, such as ("select", "label")."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        else:
            yield (*path, name), command


VERBS = dict(verbs())


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_lists_every_option_once_and_says_what_it_does(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"]).output
    for parameter in VERBS[words].params:
        if isinstance(parameter, click.Option):
            # The text about the verb may name the option at the start of a line too, but goes on in small letters.
            assert len(re.findall(rf"^  {parameter.opts[0]}(?= [A-Z\[/]| latest:|  |$)", shown, re.MULTILINE)) == 1
            assert parameter.help
            assert parameter.help.endswith((".", "%.")), parameter.help


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if isinstance(verb, GroupedCommand)])
def test_no_option_is_under_two_titles_and_every_name_under_a_title_is_one(verb: GroupedCommand) -> None:
    named = [name for names in verb.groups.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= {parameter.name for parameter in verb.params}


@pytest.mark.parametrize(("words", "heading"), [([], "See what it does:"), (["select"], "Commands:")])
def test_the_list_of_verbs_says_each_in_a_whole_sentence(words: list[str], heading: str) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"]).output.partition(heading)[2].strip().splitlines()
    assert shown
    verbs = [line for line in shown if line.startswith("  ")]
    assert not [line for line in verbs if not line.endswith(".") or line.endswith("...")]


def test_every_verb_is_listed_once_under_what_people_want() -> None:
    assert sorted(name for names in TITLES.values() for name in names) == sorted(cli.commands)


def test_verbs_come_in_the_same_order_in_every_process() -> None:
    # Processes that run the tests in parts compare their lists, and a set of names has another order in each.
    assert [name for name in cli.commands if name in PLACES] == list(PLACES)


def test_the_verbs_without_json_are_those_that_print_no_answer() -> None:
    without = {" ".join(words) for words, verb in VERBS.items() if not any("--json" in one.opts for one in verb.params)}
    # `serve` writes a log, and `demo` is to be read.
    assert without == {"serve", "demo"}


def test_a_shell_completes_verbs_and_options() -> None:
    shell = ShellComplete(cli, {}, "elle", "_ELLE_COMPLETE")
    assert [one.value for one in shell.get_completions([], "expl")] == ["explain"]
    assert "rollback" in [one.value for one in shell.get_completions(["policy"], "")]
    assert [one.value for one in shell.get_completions(["decide"], "--poli")] == ["--policy"]


def test_a_shell_completes_names_and_files_where_an_option_takes_either() -> None:
    shell = ShellComplete(cli, {}, "elle", "_ELLE_COMPLETE")

    def completed(words: list[str], typed: str) -> list[tuple[str, str]]:
        return [(one.value, one.type) for one in shell.get_completions(words, typed)]

    assert completed(["import"], "langs") == [("langs", "file"), ("langsmith", "plain")]
    assert completed(["collect", "log.jsonl", "--format"], "langs") == [("langsmith", "plain")]
    assert ("contains", "plain") in completed(["collect", "log.jsonl", "--grader"], "")
    assert ("minilm-l6", "plain") in completed(["fit", "--encoder"], "mini")
    assert completed(["fit", "--encoder"], "my") == [("my", "file")]


def test_the_models_are_called_cheap_and_expensive() -> None:
    for verb in VERBS.values():
        texts = (verb.help or "", *(getattr(parameter, "help", None) or "" for parameter in verb.params))
        assert not any(" dear" in text for text in texts), verb.name


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_kinds_and_falls_back_to_files(tmp_path: Path) -> None:
    program = tmp_path / "elle"
    program.write_text(f"#!{sys.executable}\nfrom router.cli.main import main\nmain()\n")
    program.chmod(0o755)
    script = """
    compopt() { echo "$@"; }
    eval "$(_ELLE_COMPLETE=bash_source "$0")"
    for typed in langs my; do
        COMP_WORDS=(elle import "$typed") COMP_CWORD=2 COMPREPLY=()
        _elle_completion "$0"
        echo "$typed: ${COMPREPLY[*]}"
    done
    """
    done = subprocess.run(["bash", "-c", script, program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["-o default", "langs: langsmith", "-o default", "my: "]

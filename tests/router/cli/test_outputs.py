"""What a command writes never replaces anything unless that is asked for, whichever command it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.cli.options import require_free


def writers(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that has --out, with its words.

    `elle start` is left out: it goes on in its own folder and leaves every other one alone, as its tests say.
    """
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from writers(command, (*path, name))
        elif name != "start" and any(parameter.name == "out" for parameter in command.params):
            yield (*path, name), command


WRITERS = dict(writers())

#: The commands that write a new folder and can replace nothing, so that they have no --force.
NEVER_REPLACE = {("policy", "show"), ("recalibrate",), ("forget",)}


def arguments_of(command: click.Command, data: Path) -> list[str]:
    """Return the arguments that the command needs to be parsed, besides --out."""
    given = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            given.append(str(data))
        elif parameter.required and parameter.name != "out":
            given += [parameter.opts[0], "1" if parameter.name == "count" else str(data)]
    return given


def test_all_the_commands_that_write_are_looked_at() -> None:
    assert {words[0] for words in WRITERS} >= {"fit", "tune", "report", "import", "score", "select", "export-encoder"}


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_every_command_refuses_to_replace_what_is_there_before_it_reads_anything(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("no data at all")
    for name in ("precious.parquet", "precious"):
        out = tmp_path / name
        if name == "precious":
            out.mkdir()
            (out / "mine.txt").write_text("mine")
        else:
            out.write_text("mine")
    command = WRITERS[words]
    for name in ("precious.parquet", "precious"):
        given = [*words, *arguments_of(command, tmp_path / "data"), "--out", str(tmp_path / name)]
        result = CliRunner().invoke(cli, given)
        assert result.exit_code == 1, result.output
        assert "--force" in result.stderr or "--out" in result.stderr
    assert (tmp_path / "precious.parquet").read_text() == "mine"
    assert (tmp_path / "precious" / "mine.txt").read_text() == "mine"
    assert any(parameter.name == "force" for parameter in command.params) != (words in NEVER_REPLACE)


@pytest.mark.parametrize("words", sorted(WRITERS.keys() - NEVER_REPLACE), ids=" ".join)
def test_force_never_replaces_the_file_that_the_command_reads(words: tuple[str, ...], tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    data.write_text("mine")
    given = [*words, *arguments_of(WRITERS[words], data), "--force", "--out", str(tmp_path / "." / data.name)]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 1, result.output
    assert "choose another --out" in result.stderr or "--out must end in" in result.stderr
    assert data.read_text() == "mine"


def test_force_replaces_a_file_by_a_file_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "file", folder=False, force=True)
    require_free(tmp_path / "empty", folder=True, force=False)
    require_free(tmp_path / "new", folder=True, force=False)
    for name, folder in (("file", True), ("empty", False)):
        with pytest.raises(ValueError, match="choose another --out"):
            require_free(tmp_path / name, folder=folder, force=True)
    with pytest.raises(ValueError, match="create it first"):
        require_free(tmp_path / "nowhere" / "out.parquet", folder=False, force=False)


@pytest.mark.parametrize("words", [("score", "x.npy", "--probe", "p"), ("select", "label", "x.npy", "--count", "1")])
@pytest.mark.parametrize("name", ["o.txt", "o.csv", "o"])
def test_parquet_is_written_under_its_own_ending_only(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    result = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / name)])
    assert result.exit_code == 1
    assert "--out must end in .parquet" in result.stderr

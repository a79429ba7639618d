"""Every code block of README, docs and examples runs, except the few that say in a comment why they cannot."""

from __future__ import annotations

import gc
import importlib.util
import json
import re
import shlex
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from tests.conftest import ROOT
from tests.docs.example_files import write_files
from tests.docs.pages import PAGES, Block, blocks, prose
from tests.router.serving.processes import Service, elle_serve

#: Asks simulated models hundreds of prompts; the tests of `elle collect` and `elle start` do the same with fewer.
LONG = "collect.md"
WITH_CODE = [
    pytest.param(page, marks=[pytest.mark.slow] if page.name == LONG else [], id=str(page.relative_to(ROOT)))
    for page in PAGES
    if any(block.language in ("sh", "python") for block in blocks(page))
]
EVERY = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def service(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run one service for all pages, with the policy that `elle policy` prints, over gRPC and HTTP."""
    policy = tmp_path_factory.mktemp("served") / "my.yaml"
    policy.write_text(_elle(["policy", "new"]), "utf-8")
    with elle_serve("--policy", str(policy), "--http", "0") as service:
        yield service


@pytest.fixture(scope="module")
def _example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the pages name. It is written once, because a ledger takes a second."""
    folder = tmp_path_factory.mktemp("examples")
    write_files(folder)
    (folder / "my.yaml").write_text(_elle(["policy", "new"]), "utf-8")
    return folder


@pytest.fixture
def example_folder(_example_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the files that the pages name the working directory."""
    shutil.copytree(_example_files, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.setattr("router.cli.starting.start.RESAMPLES", 100)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_CODE)
@pytest.mark.usefixtures("example_folder")
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, service: Service) -> None:
    for block in blocks(page):
        if block.reason is None and block.language == "python":
            _run_python(block, service)
        elif block.reason is None and block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                _run_line(shlex.split(line, comments=True), block)


def test_the_blocks_that_are_not_run_are_few_and_say_why() -> None:
    listed = [f"{block.name}: {block.reason}" for block in EVERY if block.reason is not None]
    assert len(listed) <= 8, "\n".join(listed)
    assert all(len(line.split()) > 3 for line in listed), "\n".join(listed)
    assert {block.language for block in EVERY} <= {"sh", "python", "yaml", "text", ""}, "a language that nothing checks"
    assert all(yaml.safe_load(block.text) for block in EVERY if block.language == "yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_page_names_beside_a_verb_is_one_of_that_verb(page: Path) -> None:
    for words in re.findall(r"`elle ([^`]*)`", prose(page)):
        command = _command(re.split(r"[\s/]+", words))
        options = {name for param in command.params for name in param.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= options | {"--help"}, f"{page.name}: elle {words}"


def _run_python(block: Block, service: Service) -> None:
    """Run a block of Python, with the addresses of the shared service in place of those of the page."""
    text = block.text.replace("localhost:50051", service.address).replace("http://localhost:8080", service.url)
    before = _open_sockets()
    exec(compile(text, block.name, "exec"), {"__name__": "page"})  # noqa: S102
    # What is left open would be closed at some later time, and warn in a test that has nothing to do with it.
    assert _open_sockets() <= before, (
        f"{block.name} leaves a connection open; begin the block with `with ... as client:`"
    )


def _open_sockets() -> set[int]:
    """Return the numbers of the open sockets of this process that belong to a Python object, dead ones included."""
    found = (one for one in gc.get_objects() if issubclass(type(one), socket.socket))
    return {one.fileno() for one in found} - {-1}


def _run_line(words: list[str], block: Block) -> None:
    """Run one line of a shell block if it is a command of ours, or check that what it names exists."""
    if not words:
        return
    program, rest = words[0], words[1:]
    if words[:2] == ["elle", "serve"]:
        # The service of the fixture stands for it; here the options and the files are checked.
        cli.commands["serve"].make_context("elle serve", rest[1:])
    elif program == "elle" and ">" in rest:
        place = rest.index(">")
        Path(rest[place + 1]).write_text(_elle(rest[:place]), "utf-8")
    elif program == "elle":
        _elle(rest)
    elif program == ".":
        assert rest == [".venv/bin/activate"], block.name
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.M), block.name
    elif program in ("sh", "python", "node", "npm") and any(word.startswith("examples/") for word in rest):
        # The tests of tests/examples run it.
        assert all((ROOT / word).exists() for word in rest if "/" in word), block.name
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(rest[1]) is not None, block.name
    elif words[:2] == ["pip", "install"]:
        _check_extras(" ".join(rest), block)
    else:
        pytest.fail(f"{block.name}: nothing runs `{' '.join(words)}`; say in a comment why, or make it run")


def _elle(arguments: list[str]) -> str:
    """Run `elle` in this process and return what it prints; an error or an exit status other than 0 fails the test."""
    if any("--resamples" in param.opts for param in _command(arguments).params):
        # The pages show no intervals, and the bootstrap takes most of the time of these commands.
        arguments = [*arguments, "--resamples", "100"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, f"elle {' '.join(arguments)}: exit status {result.exit_code}\n{result.output}"
    return result.stdout


def _command(words: list[str]) -> click.Command:
    """Return the command that these words name; the group itself if they name none, as in `elle VERB`."""
    found: click.Command = cli
    for word in words:
        if not isinstance(found, click.Group) or word not in found.commands:
            break
        found = found.commands[word]
    return found


def _check_extras(words: str, block: Block) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"elle-router\[([\w,]+)\]", words):
        assert set(named.split(",")) <= set(extras), block.name


def test_the_files_of_the_pages_are_what_they_say(example_folder: Path) -> None:
    rows = [json.loads(line) for line in (example_folder / "outcomes.jsonl").read_text("utf-8").splitlines()]
    assert {row["model"] for row in rows} == {"small", "large"}
    assert all(0 <= row["score"] <= 1 for row in rows)

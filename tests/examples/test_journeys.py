"""The examples of docs/journeys.md run as newcomers run them: clients against a service, scripts in a shell."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from router.cli.main import cli
from tests.conftest import ROOT
from tests.gateways.envoy import find_envoy
from tests.router.serving.processes import Service, elle_serve

EXAMPLES = ROOT / "examples"
JOURNEYS = EXAMPLES / "journeys"
SCRIPTS = sorted(JOURNEYS.glob("*.sh"))
#: Each script needs the files of those before it in its row, and says these words in the end.
IN_A_SHELL = {
    ("from_log.sh",): "gpt-5 is expected to be better",
    ("own_scores.sh", "third_model.sh"): "fresh (fresh)",
    ("roll_back.sh",): "it costs too much",
    ("embeddings.sh",): "tuesday-to-look-at.parquet",
}


@pytest.fixture(scope="module")
def service(_real_encoder: None) -> Iterator[Service]:
    """Run one service with the default policy for all clients."""
    with elle_serve("--http", "0") as service:
        yield service


@pytest.mark.parametrize(
    ("name", "door", "said"),
    [
        ("journeys/grpc_client.py", "address", ["economy    What is the capital", "with asyncio: True", "canned"]),
        ("journeys/openai_program.py", "url", ["Chosen: economy", "standing in for frontier", "because PINNED"]),
        ("journeys/anthropic_program.py", "url", ["Chosen: economy", "standing in for frontier"]),
        ("litellm/router_plugin.py", "address", ["I am economy.", "I am frontier."]),
    ],
)
def test_a_client_says_who_answers(
    name: str, door: str, said: list[str], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLES / name))["main"](getattr(service, door))
    out = capsys.readouterr().out
    assert [words for words in said if words not in out] == [], out


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("journeys/grpc_client.py", "127.0.0.1:1"),
        ("journeys/grpc_client.py", "http://127.0.0.1:1"),
        ("journeys/openai_program.py", "http://127.0.0.1:1"),
        ("journeys/anthropic_program.py", "http://127.0.0.1:1"),
        ("litellm/router_plugin.py", "127.0.0.1:1"),
        ("litellm/router_plugin.py", "http://127.0.0.1:1"),
    ],
)
def test_a_client_without_a_service_says_which_address_it_tried_and_what_to_do(name: str, address: str) -> None:
    command = [sys.executable, str(EXAMPLES / name), address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert address in line
    assert "by `elle serve" in line or "must be host:port" in line


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_without_elle_says_what_to_do_and_writes_nothing(script: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "dirname", "mkdir", "rm"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    command = [str(tmp_path / "bin" / "sh"), str(script)]
    environment = {"PATH": str(tmp_path / "bin")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "elle is not on the PATH; run `. .venv/bin/activate` first.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, str(JOURNEYS / "sample.py"), str(tmp_path / "file")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("file/embeddings: Not a directory. Name another folder.\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_named() -> None:
    command = [sys.executable, str(EXAMPLES / "efforts" / "model.py")]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8765))
            taken.listen()
        except OSError:
            pytest.skip("another program has the port of the example already")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "The model cannot listen on port 8765: Address already in use. End the program that has it first.\n"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize("names", IN_A_SHELL, ids=" ".join)
def test_a_script_runs_in_an_empty_folder_and_once_more(names: tuple[str, ...], tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in [*names, *names]:
        command = ["sh", str(JOURNEYS / name)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert IN_A_SHELL[names].lower() in done.stdout.lower()


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
def test_envoy_asks_who_answers(tmp_path: Path) -> None:
    find_envoy()
    for port in (8001, 8002, 8080, 50051):
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"another program has port {port}, which the example's configuration names")
    command = [sys.executable, str(JOURNEYS / "behind_envoy.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    assert "I am mixtral-8x7b. GAIN_BELOW_THRESHOLD" in done.stdout
    assert "I am gpt-4-turbo. GAIN_ABOVE_THRESHOLD" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tenth_of_a_published_row_is_computed_again(tmp_path: Path) -> None:
    words = ("--only", "photos-mae", "--scale", "0.1", "--out", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reproduce_elle", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "not installed" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "photos-mae" in (tmp_path / "results.json").read_text("utf-8")


def test_the_length_of_a_question_does_not_tell_how_hard_it_is() -> None:
    sample = runpy.run_path(str(JOURNEYS / "sample.py"))["prompts"](800, "2")
    efforts = re.findall(r'"(What[^"]*)"', (EXAMPLES / "efforts" / "efforts.py").read_text("utf-8"))
    assert len({len(template.replace("{}", "")) for template in efforts}) == 1
    assert {len(text) for text, hard in sample if hard} == {len(text) for text, hard in sample if not hard}


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_program_without_its_sdk_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=f"pip install {name}"):
        runpy.run_path(str(JOURNEYS / f"{name}_program.py"))


def test_every_script_is_run() -> None:
    assert {name for names in IN_A_SHELL for name in names} == {script.name for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_verbs_and_the_options_of_a_script_exist(script: Path) -> None:
    text = script.read_text("utf-8").replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("elle ")]
    assert lines
    for _, *words in lines:
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {name for param in command.params for name in param.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_every_example_is_short_and_is_on_the_page_of_journeys() -> None:
    page = (ROOT / "docs" / "journeys.md").read_text("utf-8")
    for path in [*JOURNEYS.iterdir(), EXAMPLES / "litellm" / "router_plugin.py"]:
        if path.suffix in (".py", ".sh"):
            assert len(path.read_text("utf-8").splitlines()) < 80, path.name
            assert re.search(rf"\b{re.escape(path.name)}\b", page), path.name

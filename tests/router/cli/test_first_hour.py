"""What people meet in their first hour: a mistyped name, a pipe, a narrow terminal, Ctrl-C, and a busy machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from router.cli import main as main_module
from router.cli.main import cli
from router.cli.output import stdout
from router.cli.starting.start import Start


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("decide", "--policy", "polcy.yaml", "hi"), "policy.yaml"),
        (("policy", "validate", "polcy.yaml", "--store", "store"), "policy.yaml"),
        (("fit", "outcome.jsonl", "--out", "new"), "outcomes.jsonl"),
        (("fit", "outcomesjsonl", "--out", "new"), "outcomes.jsonl"),
        (("import", "outcome.jsonl", "--out", "new.jsonl"), "outcomes.jsonl"),
        (("fit-pairs", "data/pars.npz", "--out", "new"), "data/pairs.npz"),
        (("fit-pairs", "data/pairsnpz", "--out", "new"), "data/pairs.npz"),
        (("select", "label", "data/pairsnpz", "--count", "1", "--out", "new.parquet"), "data/pairs.npz"),
        (("fit-pairs", "dat/pairs.npz", "--out", "new"), "data/pairs.npz"),
        (("evaluate", "prob", "outcomes.jsonl", "--weak", "a", "--strong", "b"), "probe/probe.json"),
        (("token", "list", "--tokens", "token.json"), "tokens.json"),
        (("token", "revoke", "me", "--tokens", "token.json"), "tokens.json"),
        (("ledger", "stats", "--ledger", "ledgr.db"), "ledger.db"),
        (("canary", "status", "--state", "canry.json"), "canary.json"),
        (("policy", "list", "--store", "stre"), "store"),
        (("policy", "show", "default", "--store", "stre"), "store"),
        (("policy", "rollback", "default", "--reason", "x", "--store", "stre"), "store"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_mistyped_path_is_answered_with_the_one_that_is_there(
    words: tuple[str, ...], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = ("policy.yaml", "outcomes.jsonl", "tokens.json", "ledger.db", "canary.json")
    for name in (*files, "data/pairs.npz", "probe/probe.json", "store/trail"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert f"does not exist, but {meant} does" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("decide", "hi", "--policy", ""),
        ("decide", "hi", "--encoder-dir", ""),
        ("ledger", "export", "--ledger", "ledger.db", "--force", "--out", ""),
        ("fit", "", "--out", "new"),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_wrong_usage_and_not_this_folder(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert result.stderr.endswith("it is empty; give a path.\n")


def test_a_file_that_is_no_ledger_is_told_without_the_names_of_pythons_errors(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(bytes(range(256)) * 20)
    result = CliRunner().invoke(cli, ["ledger", "stats", "--ledger", str(tmp_path / "ledger.db")])
    assert result.exit_code == 1
    assert "ledger.db (file is not a database); this file is no ledger" in result.stderr


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b'{"schema": "elle.tokens/1", "tokens": [], "tokens": []}', "must be JSON: key 'tokens' occurs twice"),
        (b"", "must be JSON: a value is missing at column 1"),
        (b"\xff\xfe\xff", "must be JSON: it begins as UTF-16 and is damaged"),
        (b'\xef\xbb\xbf{"schema": "elle.tokens/1", "tokens": []}\r\n', ""),
    ],
)
def test_a_file_of_tokens_is_read_as_other_json_is(tmp_path: Path, contents: bytes, said: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(contents)
    path.chmod(0o600)
    result = CliRunner().invoke(cli, ["token", "list", "--tokens", str(path)])
    assert (result.exit_code, said in result.stderr) == (bool(said), True)


def test_a_mistyped_model_or_encoder_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    data = tmp_path / "outcomes.jsonl"
    rows = [{"prompt": f"{i}", "model": model, "score": i % 2} for i in range(40) for model in ("small", "large")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit = ("fit", str(data), "--out", str(tmp_path / "probe"))
    models = CliRunner().invoke(cli, [*fit, "--models", "smal,large"])
    encoder = CliRunner().invoke(cli, [*fit, "--encoder", "minilm-l66"])
    assert models.stderr.endswith("got smal. Did you mean small?\n")
    assert encoder.stderr.endswith("got 'minilm-l66'. Did you mean minilm-l6?\n")


def test_nothing_is_suggested_where_nothing_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("something-else.yaml").write_text("")
    for path in ("policy.yaml", "/no/such/folder/policy.yaml"):
        assert (
            f"policy file {path} does not exist.\n"
            in CliRunner().invoke(cli, ["decide", "--policy", path, "hi"]).stderr
        )


def test_a_pipe_gets_each_sentence_on_one_line_and_a_terminal_gets_lines_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "A sentence of many words. " * 20
    stdout().print(sentence.strip())
    assert capsys.readouterr().out == sentence.strip() + "\n"
    terminal = stdout()
    monkeypatch.setattr(type(terminal), "is_terminal", True)
    terminal.width = 40
    terminal.print(sentence)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


@pytest.mark.parametrize("width", [20, 40, 160])
def test_a_table_on_a_narrow_terminal_loses_no_letter(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["7558b9d8d2ac", "09dd56bf59df", "4c4319515f0a"]
    table = Table("policy", "version", "probe digest", box=None)
    table.add_row(*ids)
    console: Console = stdout()
    console.width = width
    console.print(table)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert sorted("".join(printed.split())) == sorted("".join(("policy", "version", "probedigest", *ids)))


def test_an_empty_store_is_told_without_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for verb in ("list", "history"):
        result = CliRunner().invoke(cli, ["policy", verb, "--store", str(tmp_path / "store")])
        assert (result.exit_code, result.stdout) == (0, "")
        assert "There is no" in result.stderr


def test_the_policy_to_roll_back_may_be_mistyped(tmp_path: Path) -> None:
    policy, store = tmp_path / "policy.yaml", ["--store", str(tmp_path / "store"), "--reason", "trial"]
    policy.write_text(CliRunner().invoke(cli, ["policy", "new"]).stdout, "utf-8")
    assert CliRunner().invoke(cli, ["policy", "activate", str(policy), *store]).exit_code == 0
    assert "Did you mean default?" in CliRunner().invoke(cli, ["policy", "rollback", "defalt", *store]).stderr


def test_ctrl_c_is_one_json_object_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_version", stopped)
    result = CliRunner().invoke(cli, ["version", "--json"])
    assert json.loads(result.stdout) == {"verb": "version", "exit_status": 1, "error": "it was stopped."}
    assert result.exit_code == 1


def test_ctrl_c_in_a_long_verb_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: Start) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Start, "steps", stopped)
    (tmp_path / "log.jsonl").write_text('{"prompt": "Hi"}\n')
    words = ["start", str(tmp_path / "log.jsonl"), "--strong", "gpt-5", "--weak", "gpt-5-mini", "--max-loss", "0.1"]
    result = CliRunner().invoke(cli, [*words, "--offline", "--yes", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "Stopped. The same command goes on from here, and pays nothing twice." in result.stderr.splitlines()


MAIN = "from router.cli.main import main; main()"


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("prompt,model,score\nHi,small,1\nHi,large,1\n")
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}

    def imported(*more: str) -> str:
        words = [sys.executable, "-c", MAIN, "import", "data.csv", "--out", "東京.jsonl", "--force", *more]
        done = subprocess.run(words, capture_output=True, check=True, env=env, cwd=tmp_path)
        return done.stdout.decode("latin-1")

    assert r"to \u6771\u4eac.jsonl." in imported()
    assert json.loads(imported("--json"))["out"] == "東京.jsonl"


STOPPED_WHILE_IMPORTING = """
import sys
import router.cli
class Stop:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
router.cli.start()
"""


def test_ctrl_c_ends_in_one_line_while_the_command_is_still_being_imported() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED_WHILE_IMPORTING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")


@pytest.mark.parametrize("said", [None, "2"])
def test_the_command_gives_blas_one_thread_unless_the_user_says_otherwise(said: str | None) -> None:
    code = "import router.cli.main, threadpoolctl as t, numpy; print({i['num_threads'] for i in t.threadpool_info()})"
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    env = kept | ({"OPENBLAS_NUM_THREADS": said} if said else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    # OpenBLAS starts no more threads than there are cores.
    assert done.stdout.strip() == ("{1}" if said is None else f"{{{min(2, len(os.sched_getaffinity(0)))}}}")

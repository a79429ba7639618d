"""Nothing leaves the machine and nothing is written outside the stated places: every verb of `elle`, watched natively.

A library that is preloaded into the process (`tests/native/recorder.c`) notes every connection, look-up of a name and
file opened for writing, those of native code included. Each verb runs as a user with a fresh home directory would run
it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import numpy as np
import pytest

from router.cli.main import cli
from router.policies.loading import DEFAULT_POLICY
from tests.watched_processes import WatchedProcesses, watched_in

ELLE = (sys.executable, "-c", "from router.cli.main import main; main()")

#: Exit status of a verb that did its work and has a finding to tell, such as a policy without a certificate.
FINDING = 3


@dataclass(frozen=True)
class Run:
    """One verb with arguments that make it do its work on files of the workspace.

    quick: whether the default run watches it: one verb of each family is enough there, `make test-slow` watches all.
    """

    verb: str
    arguments: str = ""
    quick: bool = False
    output: str | None = None


RUNS = (
    Run("version", quick=True),
    Run("policy new", output="policy.yaml", quick=True),
    Run("policy new", "--from-litellm litellm.yaml"),
    Run("policy validate", "policy.yaml --store store", quick=True),
    Run("policy activate", "policy.yaml --store store --reason first", quick=True),
    Run("policy activate", "second.yaml --store store --reason second"),
    Run("policy rollback", "default --store store --reason back"),
    Run("policy list", "--store store"),
    Run("policy show", "default --store store --out shown"),
    Run("policy diff", "default default --store store"),
    Run("policy history", "--store store"),
    Run("token create", "me --tokens tokens.json", quick=True),
    Run("token list", "--tokens tokens.json"),
    Run("token revoke", "me --tokens tokens.json"),
    Run("ledger migrate", "--ledger ledger.db", quick=True),
    Run("ledger stats", "--ledger ledger.db"),
    Run("ledger export", "--ledger ledger.db --out exported"),
    Run("drift", "--ledger ledger.db", quick=True),
    Run("canary start", "new --base default --max-loss 0.1", quick=True),
    Run("canary step", "--ledger ledger.db --reference frontier"),
    Run("canary status"),
    Run("canary stop", "--reason enough"),
    Run("doctor", "--policy policy.yaml --port 0 --http 0 --ledger ledger.db --tokens tokens.json", quick=True),
    Run("validate", "policy.yaml", quick=True),
    Run("decide", "hello --json", quick=True),
    Run("explain", "hello --json"),
    Run(
        "serve",
        "--port 0 --http 0 --metrics-port 0 --ext-proc --drain-delay-s 0 --drain-s 60"
        " --ledger ledger.db --ledger-prompts",
        quick=True,
    ),
    Run("ledger sample", "--ledger ledger.db --out sampled.jsonl"),
    Run("compare", "policy.yaml second.yaml --ledger ledger.db"),
    Run("serve", "--port 0 --workers 2 --drain-delay-s 0"),
    Run("demo"),
    Run("import", "litellm-spend-logs spend.jsonl --scores scores.jsonl --out imported.jsonl"),
    Run("fit", "outcomes.jsonl --holdout 0.45 --keep-statistics --out probe"),
    Run("recalibrate", "probe fresh.jsonl --out recalibrated"),
    Run("forget", "probe labels.jsonl --skip-unknown --out without"),
    Run("label-task", "probe task1 labels.jsonl --out relabelled"),
    Run("evaluate", "probe outcomes.jsonl --weak small --strong large --resamples 100"),
    Run("evaluate", "--policy policy.yaml named.jsonl"),
    Run("preview", "spend.jsonl --policy policy.yaml --html preview.html"),
    Run("collect", "asked.jsonl --policy policy.yaml --grader number --n 5 --yes --out collected.jsonl"),
    Run("ledger label", "collected.jsonl --ledger ledger.db"),
    Run("ledger scores", "langfuse.jsonl --ledger ledger.db"),
    Run("ledger forget", "--session nobody --ledger ledger.db"),
    Run("label", "collected.jsonl --export to-label.csv"),
    Run("start", "asked.jsonl --strong big --weak small --offline --yes --max-loss 0.9 --out started"),
    Run("report", "probe outcomes.jsonl --weak small --strong large --resamples 100 --out report"),
    Run("tune", "probe outcomes.jsonl --weak small --strong large --max-loss 0.9 --out tuned.yaml"),
    Run("export-encoder", "--out encoder"),
    Run("embed", "prompts.txt --out prompts.npy"),
    Run("fit-pairs", "pairs.npz --out pairs-probe", quick=True),
    Run("score", "rows.npy --probe pairs-probe --out scored.parquet", quick=True),
    Run("score", "later.npy --probe pairs-probe --out later.parquet"),
    Run("select keep", "scored.parquet --drop-easiest 0.1 --out kept.parquet"),
    Run("select stratified", "scored.parquet --count 5 --out sample.parquet"),
    Run("select suspicious", "scored.parquet --share 0.1 --out flagged.parquet"),
    Run("select label", "rows.npy --count 5 --out to-label.parquet"),
    Run("select change", "scored.parquet later.parquet --out changed.parquet"),
)


def verbs(group: click.Command, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from verbs(command, (*prefix, name))
    else:
        yield " ".join(prefix)


@pytest.fixture
def watched(tmp_path: Path) -> WatchedProcesses:
    watched = watched_in(tmp_path)
    fill(watched.work)
    return watched


def fill(work: Path) -> None:
    """Write the files that the verbs work on."""
    rng = np.random.default_rng(0)
    prompts = [f"What is {number} plus {number * 7}?" for number in range(160)]

    def outcomes(*models: str) -> str:
        chances = np.linspace(0.5, 0.9, len(models))
        rows = [
            {"prompt": prompt, "model": model, "score": float(rng.random() < chance), "task": f"task{number % 8}"}
            for number, prompt in enumerate(prompts)
            for model, chance in zip(models, chances, strict=True)
        ]
        return "".join(json.dumps(row) + "\n" for row in rows)

    (work / "outcomes.jsonl").write_text(outcomes("small", "large"))
    (work / "fresh.jsonl").write_text(outcomes("small", "large").replace("What is", "How much is"))
    labels = [line for line in outcomes("small", "large").splitlines() if '"task1"' in line]
    (work / "labels.jsonl").write_text("\n".join(labels))
    (work / "named.jsonl").write_text(outcomes("economy", "standard", "frontier"))
    asked = [{"prompt": prompt, "reference": str(8 * number)} for number, prompt in enumerate(prompts)]
    (work / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (work / "prompts.txt").write_text("\n".join(prompts[:10]))
    np.savez(work / "pairs.npz", embedding=rng.random((200, 8), np.float32), loss=rng.random(200))
    for name in ("rows.npy", "later.npy"):
        np.save(work / name, rng.random((50, 8), np.float32))
    models = [{"model_name": "small", "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "os.environ/KEY"}}]
    (work / "second.yaml").write_bytes(DEFAULT_POLICY.read_bytes() + b"# The same policy is another version.\n")
    (work / "litellm.yaml").write_text(json.dumps({"model_list": models}))
    spend = [
        {"request_id": f"r{number}", "model": "small", "spend": 0.01, "messages": [{"role": "user", "content": prompt}]}
        for number, prompt in enumerate(prompts[:10])
    ]
    (work / "spend.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spend))
    score = {"id": "s", "traceId": "t", "name": "helpful", "value": 1.0, "dataType": "NUMERIC", "source": "API"}
    (work / "langfuse.jsonl").write_text(json.dumps(score) + "\n")
    scores = [{"id": row["request_id"], "score": 1.0} for row in spend]
    (work / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))


def run(watched: WatchedProcesses, what: Run) -> None:
    argv = (*ELLE, *what.verb.split(), *what.arguments.split())
    if what.verb == "serve":
        serve(watched, argv)
        return
    process = watched.start(*argv, stdout=subprocess.PIPE)
    out, problem = process.communicate()
    assert process.returncode in {0, FINDING}, f"{what}: {problem}"
    if what.output is not None:
        (watched.work / what.output).write_text(out)


def serve(watched: WatchedProcesses, argv: tuple[str, ...]) -> None:
    """Start it, ask over HTTP where it is there, end it in order."""
    process = watched.start(*argv)
    assert process.stderr is not None
    try:
        said = ""
        wanted = "/v1" if "--http" in argv else "serving"
        while wanted not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        if "--http" in argv:
            url = said.split()[-1] + "/chat/completions"
            body = {"model": "elle/default", "messages": [{"role": "user", "content": "hello"}]}
            assert httpx.post(url, json=body, timeout=120).status_code == 200
            tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
            assert httpx.post(url, json=body | {"tools": tools, "stream": True}, timeout=120).status_code == 200
            # What a library sends, it sends a while after it was loaded.
            time.sleep(2)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_each_verb_is_watched() -> None:
    # `top` connects only to the address that it is given, and without a service there it ends.
    assert {one.verb for one in RUNS} == {
        verb for verb in verbs(cli) if verb != "top" and not verb.startswith("admin ")
    }


def test_the_watcher_sees_what_native_code_does(watched: WatchedProcesses) -> None:
    code = "import ctypes, onnxruntime; ctypes.CDLL(None).gethostbyname(b'example.invalid')"
    process = watched.start(sys.executable, "-c", code)
    process.communicate()
    foreign = watched.foreign()
    assert "lookup example.invalid" in foreign
    # ONNX Runtime as it is without us.
    assert any(line.startswith("write ") and line.endswith("onnxruntime.db") for line in foreign)


@pytest.mark.usefixtures("_real_encoder")
def test_nothing_leaves_and_no_foreign_file_is_written(watched: WatchedProcesses) -> None:
    check(watched, [one for one in RUNS if one.quick])


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
def test_nothing_leaves_and_no_foreign_file_is_written_by_any_verb(watched: WatchedProcesses) -> None:
    check(watched, RUNS)


def check(watched: WatchedProcesses, runs: list[Run] | tuple[Run, ...]) -> None:
    found = {}
    for what in runs:
        run(watched, what)
        if foreign := watched.foreign():
            found[f"{what.verb} {what.arguments}"] = foreign
    assert not found
    assert any(line.startswith("connect 127.0.0.1") for line in watched.seen)

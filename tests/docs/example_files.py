"""The files that the pages of docs name: outcomes, exports of other programs, embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from router.collecting.labelling.questions import Questions
from router.decision import ArtifactRef
from router.drift.watch import DriftWatch
from router.ledger.opening import open_ledger
from router.ledger.settings import LedgerSettings
from router.observing.observer import DecidedEvent
from router.policies.loading import DEFAULT_POLICY
from router.values import RouteQuery
from tests.conftest import ROOT
from tests.router.drift.decisions import decision


def write_files(folder: Path) -> None:
    """Write every file that a code block reads into a folder."""
    _write(folder / "outcomes.jsonl", _outcomes(600, seed=0))
    _write(folder / "person.jsonl", list(_outcomes(600, seed=0))[:20])
    _write(folder / "newer.jsonl", _outcomes(150, seed=1))
    _write(folder / "new-labels.jsonl", _outcomes(100, seed=2))
    _write(folder / "new-calibration.jsonl", _outcomes(400, seed=3))
    _write(folder / "scored.jsonl", _scored(1000, seed=7))
    _write(folder / "newer-scored.jsonl", _scored(200, seed=8))
    _write(folder / "log.jsonl", _log())
    _write(folder / "prompts.jsonl", _prompts(400))
    fresh = {"small": "fresh", "large": "large"}
    for name, n, seed in (("fresh-labels", 50, 5), ("fresh-calibration", 400, 6)):
        _write(folder / f"{name}.jsonl", (row | {"model": fresh[row["model"]]} for row in _outcomes(n, seed=seed)))
    _write(folder / "task-outcomes.jsonl", _task_outcomes())
    _write(folder / "mail-labels.jsonl", _outcomes(3, seed=4))
    (folder / "kind-names.yaml").write_text("group 0: first chapter\ngroup 1: first chapter\n", "utf-8")
    (folder / "elle.yaml").write_text("policy: [my.yaml]\nport: 0\n", "utf-8")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    (folder / "chat.json").write_text(json.dumps({"messages": chat}), "utf-8")
    (folder / "prompts.txt").write_text("".join(f"What is {i} plus {i}?\n" for i in range(20)), "utf-8")
    (folder / "examples").symlink_to(ROOT / "examples")
    fresh_tiers = {"small": "economy", "large": "frontier"}
    rows = [row | {"model": fresh_tiers[row["model"]]} for row in _outcomes(20, seed=9)]
    _write(folder / "fresh-outcomes.jsonl", [*rows, *(row | {"model": "standard"} for row in rows[1::2])])
    _write_watched(folder)
    _write_judged(folder)
    _write_exports(folder)
    _write_embeddings(folder)


def _outcomes(n: int, *, seed: int) -> Iterable[dict[str, Any]]:
    """Yield the rows of n prompts for two models: both are good at sums, and only the large one at proofs."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        hard = rng.random() < 0.5
        text = f"Prove theorem {i} of chapter {seed}." if hard else f"What is {i} plus {seed}?"
        right = rng.random() < 0.9
        scores = {"small": float(right and not hard), "large": float(right)}
        for model, score in scores.items():
            yield {
                "prompt": text, "prompt_id": f"{seed}-{i}", "model": model, "score": score,
                "group": f"group {i % 4}", "timestamp": 1_760_000_000 + 60 * i,
            }  # fmt: skip


def _write_watched(folder: Path) -> None:
    """Write what a service has kept of 20 requests: the state of its drift watch, and its ledger."""
    settings = LedgerSettings(str(folder / "ledger.db"), keep_prompts=True)
    watch, ledger = DriftWatch(state=folder / "drift.json"), open_ledger(settings)
    for number in range(20):
        found = decision(decision_id=f"{number:032x}", policy=ArtifactRef("new", "1", "d"))
        event = DecidedEvent(RouteQuery.from_prompt("Why?"), found, "", None, text=f"Why {number}?")
        watch.decided(event)
        ledger.decided(event)
    watch.save()
    ledger.close()
    labels = (row | {"prompt_id": f"{number // 2:032x}"} for number, row in enumerate(_outcomes(5, seed=10)))
    _write(folder / "canary-labels.jsonl", labels)
    policy = yaml.safe_load(DEFAULT_POLICY.read_text("utf-8"))
    (folder / "new.yaml").write_text(yaml.safe_dump(policy | {"name": "new"}), "utf-8")


def _prompts(n: int) -> Iterable[dict[str, Any]]:
    """Yield n prompts without any answer; the simulated models find every second one hard."""
    for number in range(n):
        hard = f"Prove the theorem of chapter {number} about finite graphs."
        yield {"prompt": hard if number % 2 else f"Say hello to my friend number {number} in a kind way."}


def _scored(n: int, *, seed: int) -> Iterable[dict[str, Any]]:
    """Yield outcomes with a confidence that is higher than the small model is often right."""
    rng = np.random.default_rng(seed)
    for row in _outcomes(n, seed=seed):
        if row["model"] == "small":
            confidence = round(float(rng.beta(8, 1) if row["score"] else rng.beta(3, 1)), 3)
        yield row | {"confidence": confidence}


def _log() -> Iterable[dict[str, Any]]:
    """Yield a log of ten sessions of three requests each, with who answered and what was paid."""
    for session in range(10):
        chat: list[dict[str, str]] = []
        for number in range(3):
            chat = [*chat, {"role": "user", "content": f"What is {session} plus {number}?"}]
            yield {
                "messages": chat, "session_id": f"s{session}", "timestamp": 1_760_000_000 + 600 * session + 30 * number,
                "model": "frontier", "cost_usd": 0.005,
            }  # fmt: skip
            chat = [*chat, {"role": "assistant", "content": str(session + number)}]


def _task_outcomes() -> Iterable[dict[str, Any]]:
    """Yield outcomes of eight tasks of ten prompts; the small model is good at half of the tasks."""
    for i in range(80):
        task = i % 8
        for model, score in (("small", float(task < 4)), ("large", float(i % 10 > 0))):
            text = f"Request {i} of kind {task}: what is to be done?"
            yield {"prompt": text, "model": model, "score": score, "task": f"task {task}"}


def _write_judged(folder: Path) -> None:
    """Write judged pairs as `elle collect` does, and a sheet in which a person graded some of them."""
    rows = [
        {
            "prompt": f"What is {i} plus 1?", "prompt_id": f"p{i}", "model": model, "score": 0.5, "grader": "judge",
            "compared_with": "large", "drawn": "random", "answer": f"{i + 1}, says {model}",
        }
        for i in range(60) for model in ("small", "large")
    ]  # fmt: skip
    _write(folder / "judged.jsonl", rows)
    asked = Questions.read(folder / "judged.jsonl", "any seed").questions[:40]
    filled = "".join(f"{one.id},{'tie' if number % 4 else 'a'}\n" for number, one in enumerate(asked))
    (folder / "filled.csv").write_text(f"question,verdict\n{filled}", "utf-8")


def _write_exports(folder: Path) -> None:
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    generation = {"id": "g1", "trace_id": "t1", "type": "GENERATION", "input": json.dumps(chat)}
    (folder / "exports").mkdir()
    _write(folder / "exports" / "observations.jsonl", [generation | {"provided_model_name": "m"}])
    _write(folder / "exports" / "scores.jsonl", [{"id": "s1", "name": "correct", "observation_id": "g1", "value": 1}])
    spend = {"request_id": "a", "call_type": "acompletion", "model_group": "fast", "messages": chat, "spend": 0.002}
    rest = {"prompt_tokens": 5, "completion_tokens": 6, "status": "success", "cache_hit": "False", "metadata": {}}
    (folder / "spend.json").write_text(json.dumps([spend | rest]), "utf-8")
    sheet = "Frage;Modell;Note\nWie groß ist Köln?;m;4 - gut\n"
    (folder / "ratings-sheet.csv").write_text(sheet, "cp1252")
    (folder / "ratings.csv").write_text("request_id,score\na,4\n", "utf-8")
    body = {"model": "m", "messages": chat}
    vote = {"question_id": "q", "model_a": "m", "model_b": "n", "winner": "model_a", "conversation_a": chat}
    _write(folder / "arena-votes.jsonl", [vote, vote | {"question_id": "r", "winner": "tie"}])
    _write(folder / "requests.jsonl", [{"custom_id": "a", "url": "/v1/chat/completions", "body": body}])
    answer = {"status_code": 200, "body": {"model": "m", "choices": []}}
    _write(folder / "outputs.jsonl", [{"custom_id": "a", "response": answer, "error": None}])
    _write(folder / "graded.jsonl", [{"custom_id": "a", "score": 1}])


def _write_embeddings(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)).astype(np.float32)
    np.savez(folder / "pairs.npz", embedding=x, loss=x[:, 0] + rng.normal(size=300))
    np.save(folder / "embeddings.npy", x)
    np.save(folder / "prompts.npy", x)


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

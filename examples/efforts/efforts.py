"""Route between two reasoning efforts of one model: collect outcomes, fit, tune, and answer with the policy.

Run it by `python examples/efforts/efforts.py` in an environment with the extras `serve`, `dispatch` and `train`. The
model is a stand-in on loopback (`model.py`), so nothing leaves the machine and nothing is paid.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from model import serving

from router.answering.dispatch import Dispatcher
from router.cli.main import cli
from router.deciding.pipeline import Router
from router.values import Overrides, RouteQuery

POLICY = Path(__file__).with_name("policy.yaml")
EASY, HARD = "What is {} plus {}, if you add them together?", "What is the product of {} and {}, worked out?"


def elle(*words: object) -> None:
    """Run a command of `elle`, as a person would in a shell."""
    cli.main([*map(str, words)], standalone_mode=False)


async def ask(policy: Path, questions: list[str], pins: list[str | None]) -> list[tuple[str, str, float]]:
    """Return for each question and pinned candidate who answered, the answer, and its cost in USD."""
    router = Router.from_files(policy)
    dispatcher, found = Dispatcher(router.policies), []
    for question in questions:
        for pin in pins:
            query = RouteQuery.from_prompt(question, overrides=Overrides(pin=pin))
            done = await dispatcher.complete(query, await router.adecide(query))
            found.append((done.delivery.answered_by, done.text, done.usage.cost_usd))
    await dispatcher.aclose()
    await router.close()
    return found


def main() -> None:
    """Run the model on loopback, and route between its efforts."""
    with serving() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        route()
        server.shutdown()


def route() -> None:
    """Collect outcomes of both efforts, fit and tune on them, and say what the tuned policy costs."""
    questions = [(EASY if i % 2 else HARD).format(i + 2, 3 * i + 1) for i in range(600)]
    right = [str((i + 2) + (3 * i + 1) if i % 2 else (i + 2) * (3 * i + 1)) for i in range(600)]
    columns = {"quick": "gpt-x@low", "thorough": "gpt-x@high"}
    with tempfile.TemporaryDirectory() as folder:
        data, probe, tuned = (Path(folder) / name for name in ("outcomes.jsonl", "probe", "tuned.yaml"))
        answers = asyncio.run(ask(POLICY, questions, list(columns)))
        with data.open("w", encoding="utf-8") as file:
            for i, (who, said, usd) in enumerate(answers):
                row = {"prompt": questions[i // 2], "model": columns[who], "cost_usd": usd}
                file.write(json.dumps(row | {"score": float(said == right[i // 2])}) + "\n")
        elle("fit", data, "--holdout", 0.5, "--out", probe)
        elle("tune", probe, data, "--candidates", POLICY, "--max-loss", 0.05, "--out", tuned)
        new = [(EASY if i % 2 else HARD).format(700 + i, 900 - i) for i in range(20)]
        routed, always = asyncio.run(ask(tuned, new, [None])), asyncio.run(ask(tuned, new, ["thorough"]))
    quick = sum(who == "quick" for who, _, _ in routed)
    same = sum(one[1] == other[1] for one, other in zip(routed, always, strict=True))
    paid, most = (sum(usd for *_, usd in answers) for answers in (routed, always))
    print(f"{quick} of {len(new)} questions went to the low effort, and {same} answers are those of the high one.")
    print(f"They cost {paid:.4f} USD, and {most:.4f} at high effort.")


if __name__ == "__main__":
    main()

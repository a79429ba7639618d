"""`elle demo`: start the service, send it a dozen prompts over gRPC, and print how each was decided and answered.

Encoder, probe, gRPC, LiteLLM and HTTP are the real ones. Only the answers are canned, and they say so. It needs no key.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.client import Answer, AsyncRouterClient
from router.decision import RoutingDecision
from router.errors import ServiceError
from router.explaining.sentences import short_reason
from router.money import usd_text
from router.serving.server import RunningService, serving
from router.serving.settings import ServerSettings
from router.values import Message, RouteQuery

# A picture of one grey pixel: the router does not look into images, it only sees that the prompt holds one.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class DemoPrompt:
    """A prompt of the demo, with the label that the table shows for it."""

    label: str
    messages: tuple[Message, ...]


def _one(text: str, label: str = "") -> DemoPrompt:
    return DemoPrompt(label or text, ({"role": "user", "content": text},))


PROMPTS = (
    _one("Hi there! How is your day going?"),
    _one("What is the capital of Australia?"),
    _one("Translate into French: The shop opens at nine."),
    _one("Please make this sentence friendlier: Send me the report by noon."),
    _one("What is 15 % of 80?"),
    _one(
        "Summarise in one sentence: The meeting is moved to Friday at ten, because the room is taken on Thursday.",
        "Summarise in one sentence: ...",
    ),
    _one("How do I boil an egg?"),
    _one("Wie heißt die Hauptstadt von Portugal?"),
    DemoPrompt(
        "Go ahead and finish the proof. (after three messages)",
        (
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "I want to prove that the square root of 2 is irrational."},
            {"role": "assistant", "content": "Assume it equals p/q in lowest terms. What follows for p squared?"},
            {"role": "user", "content": "Go ahead and finish the proof."},
        ),
    ),
    _one(
        "Our lock-free queue in C++ loses elements under contention on ARM but not on x86. The producer uses "
        "memory_order_relaxed for the tail store. Explain what goes wrong and fix it.",
        "Our lock-free queue in C++ loses elements ...",
    ),
    _one(
        "Find all functions f from the reals to the reals with f(x + f(y)) = f(x) + y for all x and y.",
        "Find all functions f from the reals to ...",
    ),
    DemoPrompt(
        "What is in this picture? (with an image)",
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this picture?"},
                    {"type": "image_url", "image_url": {"url": PIXEL}},
                ],
            },
        ),
    ),
)

NEXT_STEPS = """\
What was real: the encoder, the fitted probe, the decisions, gRPC, LiteLLM and HTTP. The answers came from a built-in
upstream that only sends canned text, so no key was needed and nothing left this machine.

Next:
  your own case         docs/journeys.md of the repository has twelve, with commands to copy; docs/faq.md answers doubts
  ask why               ELLE explain "Prove that there are infinitely many primes."
  keep it running       ELLE serve --http 8080 --admin-port 9465
                        and watch it at http://localhost:9465
  use real providers    ELLE policy new > my.yaml; set each `model` there to a LiteLLM model string
                        and delete `api_base: canned`; export the provider's key, then
                        ELLE serve --policy my.yaml
  fit your own data     ELLE fit outcomes.jsonl --out my-probe    (columns: prompt, model, score)
"""


def next_steps() -> str:
    """Return what to do next, with `elle` written as the user can type it here."""
    called = Path(sys.argv[0])
    found = shutil.which("elle")
    same = found is not None and Path(found).resolve() == called.resolve()
    with contextlib.suppress(ValueError):
        called = called.absolute().relative_to(Path.cwd())
    return NEXT_STEPS.replace("ELLE", "elle" if same or called.name != "elle" else str(called))


def run_demo(console: Console) -> None:
    """Start the service, send the prompts through the gRPC client, print the decisions, and stop the service.

    Raises whatever starting the service raises. A prompt that the service refuses is shown as refused.
    """
    asyncio.run(_run(console))


async def _run(console: Console) -> None:
    console.print("Starting the service on its embedded default ...")
    async with serving(ServerSettings(port=0)) as running, AsyncRouterClient(running.address, timeout_s=300) as client:
        policy = running.router.policy(None)
        console.print(f"Serving policy {policy.ref.name!r} on {running.address}.\n", highlight=False)
        outcomes = [await _ask(client, prompt) for prompt in PROMPTS]
        _print_table(console, running, outcomes)
        console.print("Stopping ...")
    console.print(f"Stopped cleanly.\n\n{next_steps()}", highlight=False, soft_wrap=True)


async def _ask(client: AsyncRouterClient, prompt: DemoPrompt) -> tuple[DemoPrompt, Answer | ServiceError]:
    try:
        return prompt, await client.complete(RouteQuery(prompt.messages))
    except ServiceError as error:
        return prompt, error


def _print_table(
    console: Console, running: RunningService, outcomes: list[tuple[DemoPrompt, Answer | ServiceError]]
) -> None:
    table = Table(title="A dozen prompts, decided and answered over gRPC", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("prompt", ratio=5)
    table.add_column("goes to")
    table.add_column("why", ratio=6)
    for prompt, outcome in outcomes:
        if isinstance(outcome, ServiceError):
            table.add_row(Text(prompt.label), "refused", Text(str(outcome)))
        else:
            table.add_row(Text(prompt.label), outcome.decision.chosen, Text(short_reason(outcome.decision)))
    console.print(table)
    decisions = [outcome.decision for _, outcome in outcomes if not isinstance(outcome, ServiceError)]
    for line in _summary(decisions, running.router.policy(None).rules.file.names):
        console.print(Text(line))


def _summary(decisions: list[RoutingDecision], names: tuple[str, ...]) -> Iterator[str]:
    """Yield who answered how many prompts, what that saves in comparison with what, and how long deciding took."""
    if not decisions:
        return
    counts = Counter(decision.chosen for decision in decisions)
    yield f"Answered: {', '.join(f'{counts[name]} by {name}' for name in names)}."
    spent, always = (sum(column) for column in zip(*map(_costs, decisions), strict=True))
    if always:
        n, strongest = len(decisions), names[-1]
        yield f"Expected cost of all {n}: {usd_text(spent)}. If {strongest} had answered them all: {usd_text(always)}."
        saved = 100 * (1 - spent / always)
        yield f"That saves {saved:.0f} %, at the prices and the lengths of answers that the policy states."
        yield "The prompts were written for this demo. What you save depends on your own."
    took = median(decision.timings.total_s for decision in decisions)
    yield f"A decision took {took * 1e3:.1f} ms (median)."


def _costs(decision: RoutingDecision) -> tuple[float, float]:
    """Return the expected cost in USD of an answer by the chosen candidate, and of one by the strongest candidate."""
    chosen = next(c for c in decision.candidates if c.candidate == decision.chosen)
    return chosen.expected_cost_usd or 0.0, decision.candidates[-1].expected_cost_usd or 0.0

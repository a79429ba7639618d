"""`elle demo`: start the service, send it a dozen prompts over gRPC, and print how each was decided and answered.

Encoder, probe, gRPC, LiteLLM and HTTP are the real ones. Only the answers are canned, and they say so. It needs no key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from router.cli.render import format_number, format_risks
from router.client import Answer, AsyncRouterClient
from router.deciding.reason_words import describe_reason
from router.errors import ServiceError
from router.serving.server import RunningService, serving
from router.serving.settings import ServerSettings
from router.values import Message, RouteQuery, RoutingDecision

# A picture of one grey pixel: the router does not look into images, it only sees that the prompt holds one.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class DemoPrompt:
    """A prompt of the demo, with the label that the table shows for it."""

    label: str
    messages: tuple[Message, ...]
    parameters: dict[str, Any] = field(default_factory=dict)


def _one(label: str, text: str) -> DemoPrompt:
    return DemoPrompt(label, ({"role": "user", "content": text},))


PROMPTS = (
    _one("small talk", "Hi there! How is your day going?"),
    _one("everyday fact", "What is the capital of Australia?"),
    _one("rewrite", "Please make this sentence friendlier: Send me the report by noon."),
    _one(
        "school arithmetic", "A pen costs 3 dollars and a book 12. Ann buys four pens and two books. How much in all?"
    ),
    _one(
        "graduate mathematics",
        "Let K be the splitting field of x^4 - 2 over the rationals. Determine the Galois group of K over Q, list its "
        "subgroups, and give the corresponding intermediate fields.",
    ),
    _one(
        "competition mathematics",
        "How many ordered triples (a, b, c) of positive integers satisfy a + b + c = 60 such that a divides b and b "
        "divides c? Show your reasoning.",
    ),
    _one("code", "Write a Python function that returns the n-th Fibonacci number using memoisation."),
    _one(
        "systems programming",
        "Our lock-free queue in C++ loses elements under contention on ARM but not on x86. The producer uses "
        "memory_order_relaxed for the tail store. Explain what goes wrong and fix it.",
    ),
    _one(
        "law",
        "A tenant stops paying rent because the heating has failed for two weeks. Which remedies does each side have?",
    ),
    _one("German", "Erkläre mir bitte in zwei Sätzen, warum der Himmel blau ist."),
    DemoPrompt(
        "multi-turn chat",
        (
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "I want to prove that the square root of 2 is irrational."},
            {"role": "assistant", "content": "Assume it equals p/q in lowest terms. What follows for p squared?"},
            {"role": "user", "content": "Go ahead and finish the proof."},
        ),
    ),
    DemoPrompt(
        "image",
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this picture?"},
                    {"type": "image_url", "image_url": {"url": _PIXEL}},
                ],
            },
        ),
    ),
)

NEXT_STEPS = """\
What was real: the encoder, the fitted probe, the decisions, gRPC, LiteLLM and HTTP. The answers came from a built-in
upstream that only sends canned text, so no key was needed and nothing left this machine.

Next:
  keep it running       .venv/bin/elle serve
  decide one prompt     .venv/bin/elle decide "Prove that there are infinitely many primes."
  use real providers    .venv/bin/elle policy > my.yaml; there, set each candidate's `model` to a LiteLLM model string
                        and delete `api_base: canned`; export the provider's key, then
                        .venv/bin/elle serve --policy my.yaml
  fit your own data     .venv/bin/elle fit outcomes.jsonl --out my-probe    (columns: prompt, model, score)
"""


def run_demo(console: Console) -> None:
    """Start the service, send the prompts through the gRPC client, print the decisions, and stop the service.

    Raises whatever starting the service raises. A prompt that the service refuses is shown as refused.
    """
    asyncio.run(_run(console))


async def _run(console: Console) -> None:
    console.print("Starting the service on its embedded default ...")
    async with serving(ServerSettings(port=0)) as running, AsyncRouterClient(running.address) as client:
        policy = running.router.policy(None)
        console.print(f"Serving policy {policy.ref.name} on {running.address}.\n", highlight=False)
        outcomes = [await _ask(client, prompt) for prompt in PROMPTS]
        _print_table(console, running, outcomes)
        console.print("Stopping ...")
    console.print(f"Stopped cleanly.\n\n{NEXT_STEPS}", highlight=False, markup=False, soft_wrap=True)


async def _ask(client: AsyncRouterClient, prompt: DemoPrompt) -> tuple[DemoPrompt, Answer | ServiceError]:
    try:
        return prompt, await client.complete(RouteQuery(prompt.messages, parameters=prompt.parameters))
    except ServiceError as error:
        return prompt, error


def _print_table(
    console: Console, running: RunningService, outcomes: list[tuple[DemoPrompt, Answer | ServiceError]]
) -> None:
    names = running.router.policy(None).rules.file.names
    table = Table(title="A dozen prompts, decided and answered over gRPC", title_justify="left")
    table.add_column("prompt")
    for header in ("difficulty", *(f"risk\n{name}" for name in names)):
        table.add_column(header, justify="right")
    table.add_column("chosen")
    table.add_column("reason")
    table.add_column("decided in", justify="right")
    table.add_column("cost of\nstrong", justify="right")
    for prompt, outcome in outcomes:
        if isinstance(outcome, ServiceError):
            table.add_row(prompt.label, "-", *("-" for _ in names), "refused", str(outcome), "-", "-")
        else:
            table.add_row(prompt.label, *_decision_cells(outcome.decision))
    console.print(table)
    costs = [_costs(outcome.decision) for _, outcome in outcomes if not isinstance(outcome, ServiceError)]
    spent, always_strong = (sum(column) for column in zip(*costs, strict=True)) if costs else (0.0, 0.0)
    if always_strong:
        console.print(
            f"Expected cost of these prompts: ${spent:.5f}, always-strong ${always_strong:.5f} "
            f"({1 - spent / always_strong:.0%} saved). The answers are assumed to be as long as the policy expects.",
            highlight=False,
        )


def _decision_cells(decision: RoutingDecision) -> tuple[str, ...]:
    cost, strong = _costs(decision)
    return (
        format_number(decision.difficulty),
        *format_risks(decision.candidates),
        decision.chosen,
        describe_reason(decision),
        f"{decision.timings.total_s * 1e3:.1f} ms",
        f"{cost / strong:.0%}" if strong else "-",
    )


def _costs(decision: RoutingDecision) -> tuple[float, float]:
    """Return the expected cost in USD of an answer by the chosen candidate, and of one by the strongest candidate."""
    chosen = next(c for c in decision.candidates if c.candidate == decision.chosen)
    return chosen.expected_cost_usd or 0.0, decision.candidates[-1].expected_cost_usd or 0.0

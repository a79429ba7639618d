"""Route three prompts from Python over gRPC, one after the other and at the same time.

Start `elle serve` in another terminal, then run `python examples/journeys/grpc_client.py [ADDRESS]`. Needs no extra.
"""

from __future__ import annotations

import asyncio
import sys

from router.client import AsyncRouterClient, RouterClient
from router.errors import RouterError

PROMPTS = (
    "What is the capital of France?",
    "Please make this sentence friendlier: Send me the report by noon.",
    "Find all functions f from the reals to the reals with f(x + f(y)) = f(x) + y for all x and y.",
)


def one_after_the_other(address: str) -> list[str]:
    """Return the chosen candidates, asked for in a plain program."""
    with RouterClient(address) as client:
        return [client.route(prompt).chosen for prompt in PROMPTS]


async def at_the_same_time(address: str) -> list[str]:
    """Return the chosen candidates, asked for in a program of asyncio."""
    async with AsyncRouterClient(address) as client:
        decisions = await asyncio.gather(*map(client.route, PROMPTS))
    return [decision.chosen for decision in decisions]


def main(address: str = "localhost:50051") -> None:
    """Route the prompts both ways, then ask for an answer too."""
    chosen = one_after_the_other(address)
    for candidate, prompt in zip(chosen, PROMPTS, strict=True):
        print(f"{candidate:10} {prompt}")
    print("The same with asyncio:", asyncio.run(at_the_same_time(address)) == chosen)
    with RouterClient(address) as client:
        print("An answer:", client.complete(PROMPTS[0]).text)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except RouterError as error:
        sys.exit(str(error))

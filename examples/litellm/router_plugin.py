"""Let the service decide for LiteLLM's own Router, as its plugin.

Start `elle serve` in another terminal, then run `python examples/litellm/router_plugin.py [ADDRESS]`. Needs the extra
`dispatch`. The answers are mocked by LiteLLM, so no key is needed: delete `mock_response` and name your models.
"""

from __future__ import annotations

import asyncio
import os
import sys

# Without it LiteLLM asks the internet for prices when it is imported, and waits if there is none.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from router.gateways.litellm_plugin import elle_plugin

PROMPTS = (
    "What is the capital of France?",
    "Find all functions f from the reals to the reals with f(x + f(y)) = f(x) + y for all x and y.",
)


def deployment(candidate: str) -> dict[str, object]:
    """Return a deployment of the model group `auto` that stands for a candidate of the policy."""
    params = {"model": f"openai/{candidate}", "api_key": "none", "mock_response": f"I am {candidate}."}
    return {"model_name": "auto", "litellm_params": params, "model_info": {"elle_candidate": candidate}}


async def ask(address: str) -> list[str]:
    """Return the answers to the prompts; LiteLLM asks the deployment of the candidate that the service chose."""
    deployments = [deployment(candidate) for candidate in ("economy", "standard", "frontier")]
    router = litellm.Router(model_list=deployments, plugins=[elle_plugin(address)])
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    answers = [await router.acompletion(model="auto", messages=chat) for chat in chats]
    return [answer.choices[0].message.content for answer in answers]


def main(address: str = "localhost:50051") -> None:
    """Ask LiteLLM's Router and say who answered."""
    for prompt, answer in zip(PROMPTS, asyncio.run(ask(address)), strict=True):
        print(f"{answer:15} {prompt}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (litellm.ServiceUnavailableError, litellm.BadRequestError) as error:
        sys.exit(error.message.partition("\n")[0])

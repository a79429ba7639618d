"""The service with a policy for every fault, and a caller that holds it to its deadline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from router.attempts import Attempt, AttemptOutcome, Delivery
from router.client import RouterClient
from router.serving.settings import ServerSettings
from router.values import Overrides
from tests.router.fault_policies import (
    BEHAVES_AS,
    BREAKS_OFF,
    CASES,
    PROMPT,
    write_policies,
)
from tests.router.faults import FaultyUpstream, upstream_in_thread
from tests.service import running_service

DEADLINE_S = 4.0

#: Those that LiteLLM sees otherwise than we do.
THROUGH_LITELLM = [
    case for case in CASES if case[0] in {"429-wait", "malformed", "no-choices", "text-message", "html", "reset"}
]

FAULTS = [
    *(fault for fault, _ in CASES),
    *(*BREAKS_OFF, *BEHAVES_AS, "ok", "429-once", "big", "endless", "flood", "400", "422"),
]


@contextlib.contextmanager
def serving_faults(folder: Path, faults: list[str], provider: str) -> Iterator[tuple[str, FaultyUpstream]]:
    """Yield the address of a service with a policy for every fault, and its upstream."""
    with upstream_in_thread() as (upstream, resetting):
        paths = write_policies(folder, faults, upstream, resetting, provider)
        with running_service(ServerSettings(policies=paths, port=0, drain_s=1)) as address:
            with RouterClient(address, timeout_s=60) as client:  # LiteLLM's import, seconds, is nobody's deadline here
                client.complete(PROMPT, Overrides(policy="ok-unary"))
            yield address, upstream


def ask(address: str, method: str, policy: str, deadline_s: float = DEADLINE_S) -> tuple[str, Delivery]:
    """Return the text of an answer, and its `Delivery`. An answer that comes after the deadline raises an error."""
    with RouterClient(address, timeout_s=deadline_s) as client:
        if method == "unary":
            answer = client.complete(PROMPT, Overrides(policy=policy))
            return answer.text, answer.delivery
        first, *steps = client.stream(PROMPT, Overrides(policy=policy))
        assert first.decision is not None
        assert [step.delivery is not None for step in steps] == [True] + [False] * (len(steps) - 1)
        assert steps[0].delivery is not None
        return "".join(step.text for step in steps), steps[0].delivery


def outcomes(attempts: tuple[Attempt, ...]) -> list[tuple[str, AttemptOutcome]]:
    return [(attempt.candidate, attempt.outcome) for attempt in attempts]

"""Say how each fault of `tests.router.faults` must end, and write policies whose chosen candidate has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from router.attempts import AttemptOutcome
from tests.router.faults import FaultyUpstream, closed_port

PROMPT = "What is 2 + 2? SECRET"
METHODS = ["unary", "stream"]

A = AttemptOutcome
TWICE_UNAVAILABLE = [A.UNAVAILABLE, A.UNAVAILABLE]

#: What the faulty candidate's attempts come to before another one answers, whether it is asked to stream or not.
FALLS_BACK: dict[str, Any] = {
    "429-wait": [A.RATE_LIMITED],
    "429": [A.RATE_LIMITED, A.RATE_LIMITED],
    "401": [A.DENIED],
    "402": [A.DENIED],
    "403": [A.DENIED],
    "404": [A.NOT_FOUND],
    "500": TWICE_UNAVAILABLE,
    "503": TWICE_UNAVAILABLE,
    "hang": [A.TIMED_OUT],
    "malformed": TWICE_UNAVAILABLE,
    "no-choices": TWICE_UNAVAILABLE,
    "text-message": TWICE_UNAVAILABLE,
    "deep": TWICE_UNAVAILABLE,
    "html": TWICE_UNAVAILABLE,
    "too-long": [A.CONTEXT_WINDOW],
    "dead-port": TWICE_UNAVAILABLE,
    "dead-name": TWICE_UNAVAILABLE,
    "tcp-reset": TWICE_UNAVAILABLE,
}
FALLS_BACK_UNARY = {"empty-choices": TWICE_UNAVAILABLE, "reset": TWICE_UNAVAILABLE, "tcp-reset-late": TWICE_UNAVAILABLE}
FALLS_BACK_STREAM = {"slow-first-token": [A.TIMED_OUT], "reset-early": TWICE_UNAVAILABLE}
CASES = [
    *((fault, method) for fault in FALLS_BACK for method in METHODS),
    *((fault, "unary") for fault in FALLS_BACK_UNARY),
    *((fault, "stream") for fault in FALLS_BACK_STREAM),
]
#: Faults that show when part of a stream has been sent.
BREAKS_OFF = ["reset", "tcp-reset-late", "malformed-late", "cut-off", "stall"]
#: Those of which the upstream itself knows nothing.
UNSEEN = frozenset({"dead-port", "dead-name", "tcp-reset", "tcp-reset-late"})

#: Faults that are another one, under other settings or in a test of its own. Breakers remember who failed, so every
#: test asks candidates that no other test asks; else what it finds would depend on the order of the tests.
BEHAVES_AS = {
    "session-500": "500",
    "pinned-500": "500",
    "denied-503": "503",
    "logged-500": "500",
    "logged-401": "401",
    "logged-reset": "reset",
    "logged-malformed": "malformed",
    "hang-long": "hang",
    "hang-whole": "hang",
    "slow-long": "slow-first-token",
    "hang-leave": "hang",
    "dead-often": "hang",
    "endless-late": "endless",
}


def policy(name: str, weak: dict[str, Any], strong: dict[str, Any], *, threshold: float) -> dict[str, Any]:
    """Return the embedded default's probe on our upstream.

    A threshold of 1 chooses the weak candidate, and -1 the strong one.
    """
    common = {"capabilities": ["text", "tools"], "timeout_s": 0.5, "first_token_timeout_s": 0.5}
    return {
        "schema": "elle.policy/1",
        "name": name,
        "probe": "builtin:mixtral-gpt4",
        "candidates": [
            common
            | {"name": "weak", "probe_model": "Mixtral-8x7B-Instruct-v0.1", "context_window_tokens": 1000}
            | weak,
            common | {"name": "strong", "probe_model": "gpt-4-1106-preview", "context_window_tokens": 9000} | strong,
        ],
        "rule": {"kind": "gain", "thresholds": [threshold]},
        "safe_default": "strong",
        "abstain_above_leverage": None,
    }


def write_policies(
    folder: Path, faults: Iterable[str], upstream: FaultyUpstream, resetting: str, provider: str = "openai"
) -> tuple[Path, ...]:
    """Write the files of `policies`; `resetting` is the URL of `faults.resetting_server`."""
    paths = []
    for one in policies(faults, upstream, resetting, provider):
        paths.append(folder / f"{one['name']}.yaml")
        paths[-1].write_text(yaml.safe_dump(one), "utf-8")
    return tuple(paths)


def policies(
    faults: Iterable[str], upstream: FaultyUpstream, resetting: str, provider: str
) -> Iterator[dict[str, Any]]:
    """Yield policies for each fault and method, so that no breaker is shared.

    `FAULT-METHOD` chooses the faulty weak candidate, and `floor-FAULT-METHOD` the faulty strong one.
    """
    bases = {
        "dead-port": f"http://127.0.0.1:{closed_port()}/v1",
        "dead-name": "http://nobody.invalid/v1",
        "tcp-reset": resetting,
        "tcp-reset-late": resetting.replace("/v1", "/late/v1"),
    }
    special: dict[str, dict[str, Any]] = {
        "hang-long": {"timeout_s": 30, "first_token_timeout_s": 30, "break_after": 1},
        "hang-whole": {"timeout_s": 30, "first_token_timeout_s": 0.1, "break_after": 1},
        "slow-long": {"timeout_s": 30, "first_token_timeout_s": 30, "break_after": 1},
        "hang-leave": {"timeout_s": 30, "first_token_timeout_s": 30},
        "dead-often": {"timeout_s": 2, "first_token_timeout_s": 2, "retries": 0, "break_after": 3, "cooldown_s": 60},
        "big": {"timeout_s": 30, "first_token_timeout_s": 30, "max_answer_bytes": 16 * 1024 * 1024},
    }
    for fault in dict.fromkeys(faults):
        for method in METHODS:
            which = BEHAVES_AS.get(fault, fault)
            base = {"api_base": bases.get(fault, upstream.url)}
            well = {"model": f"{provider}/ok@{fault}-{method}", "api_base": upstream.url}
            ill = {"model": f"{provider}/{which}@{fault}-{method}"} | base | special.get(fault, {})
            yield policy(f"{fault}-{method}", ill, well, threshold=1)
            floor = ill | {"model": f"{provider}/{which}@floor-{fault}-{method}"}
            well = well | {"model": f"{provider}/ok@floor-{fault}-{method}"}
            yield policy(f"floor-{fault}-{method}", well, floor, threshold=-1)


def expected_of(fault: str, method: str) -> list[AttemptOutcome]:
    """Return the outcomes that the attempts of the faulty candidate must have."""
    table = FALLS_BACK | (FALLS_BACK_UNARY if method == "unary" else FALLS_BACK_STREAM)
    found: list[AttemptOutcome] = table[fault]
    return found

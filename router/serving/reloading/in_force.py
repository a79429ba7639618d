"""Hold what decides and answers at one time (`InForce`), and say in words how two of them differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.policies.loading import ServedPolicy

#: How many characters of a digest are shown in the log.
SHOWN_DIGEST = 12


@dataclass(frozen=True, slots=True)
class InForce:
    """One router and the dispatcher with the same policies. A request takes both at once and keeps them to its end.

    So no request sees parts of two versions, and its decision record names the version that decided it.
    """

    router: Router
    dispatcher: Dispatcher


def are_served(policies: Iterable[ServedPolicy], router: Router) -> bool:
    """Return whether a router decides by exactly these policies, with the same probes and the same prices."""
    return [_identity(one) for one in policies] == [_identity(one) for one in router.policies.values()]


def _identity(policy: ServedPolicy) -> tuple[object, ...]:
    return policy.ref, policy.probe_ref, policy.rules


def say_versions(router: Router) -> str:
    """Return the name of each policy of a router with the digests of the policy and of its probe."""
    return ", ".join(_say(policy) for name, policy in router.policies.items() if ":" not in name)


def say_change(before: Router, after: Router) -> str:
    """Return for each policy that is new, gone or of another version its versions before and after."""
    old, new = before.policies, after.policies
    names = [name for name in dict.fromkeys([*old, *new]) if ":" not in name]
    changed = [
        f"{_say(old[name]) if name in old else f'{name} (none)'} -> {_say(new[name]) if name in new else '(none)'}"
        for name in names
        if name not in old or name not in new or _identity(old[name]) != _identity(new[name])
    ]
    return "; ".join(changed) or "the same policies in another order"


def _say(policy: ServedPolicy) -> str:
    probe = f" with probe {policy.probe_ref.digest[:SHOWN_DIGEST]}" if policy.probe_ref else ""
    return f"{policy.ref.name} {policy.ref.digest[:SHOWN_DIGEST]}{probe}"

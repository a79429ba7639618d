"""Run attacks and print the table."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.attack import families
from benchmarks.attack.machine import Noise, machine
from benchmarks.attack.target import Found, Target, attacked_service

Attack = Callable[[Target], Found]

#: Seconds for which an attack is repeated. The other caller makes a hundred calls a second, of which one in a hundred
#: may be slow, so that fewer seconds would not do.
SECONDS, QUICK_SECONDS = 2.5, 0.3


def main() -> None:
    """Run the attacks that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack")
    parser.add_argument("names", nargs="*", metavar="NAME", help="attacks or families; all unless given")
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--factor", type=float, default=1.0, help="how much wider the limits on time are")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long an attack is repeated")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    asked = parser.parse_args()
    attacks = chosen(asked.names, quick=asked.quick)
    if asked.list:
        for family, attack in attacks:
            print(f"{family:12} {attack.__name__:40} {_about(attack)}")
        return
    before, noise, began = machine(), Noise(), time.monotonic()
    with attacked_service(seconds=QUICK_SECONDS if asked.quick else asked.seconds, factor=asked.factor) as target:
        rows = [
            row(target, family, attack, f"{number}/{len(attacks)}")
            for number, (family, attack) in enumerate(attacks, 1)
        ]
        alive = target.alive()
    kept = all(one["kept"] for one in rows)
    about = {**before, "load_of_a_minute_afterwards": machine()["load_of_a_minute"], "stolen": noise.stolen()}
    seconds = round(time.monotonic() - began)
    table = {"alive_afterwards": alive, "kept": kept, "seconds": seconds, "machine": about, "attacks": rows}
    print(json.dumps(table, indent=2))
    sys.exit(0 if alive and kept else 1)


def chosen(names: list[str], *, quick: bool) -> list[tuple[str, Attack]]:
    """Yield the family and the attack for everything that is asked for. Exits if a name is unknown."""
    found: list[tuple[str, Attack]] = []
    for module in pkgutil.iter_modules(families.__path__):
        family: Any = importlib.import_module(f"{families.__name__}.{module.name}")
        found += [(module.name, attack) for attack in (family.QUICK if quick else family.ATTACKS)]
    if unknown := set(names) - {name for family, attack in found for name in (family, attack.__name__)}:
        sys.exit(f"no such attack: {', '.join(sorted(unknown))}; see --list.")
    return [one for one in found if not names or {one[0], one[1].__name__} & set(names)]


def row(target: Target, family: str, attack: Attack, which: str) -> dict[str, Any]:
    """Run an attack and return its row of the table; say on stderr that it ended, because all of them take a while."""
    began = time.monotonic()
    found = attack(target)
    made = {
        "family": family,
        "attack": attack.__name__,
        "about": _about(attack),
        "seconds": round(time.monotonic() - began, 1),
        "measured": found.measured,
        "limits": found.limits,
        "kept": found.kept,
    }
    said = f"{which:>7} {'ok    ' if found.kept else 'BROKEN'} {family}.{attack.__name__} {made['seconds']} s"
    print(said, found.broken or "", file=sys.stderr, flush=True)
    return made


def _about(attack: Attack) -> str:
    return (attack.__doc__ or "").splitlines()[0] if attack.__doc__ else ""


if __name__ == "__main__":
    main()

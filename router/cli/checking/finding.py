"""Say what a check of `elle doctor` found (`Finding`), and run checks so that none of them ends the others."""

from __future__ import annotations

import enum
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from probes.bounded.secrets import mask_secrets
from probes.errors import ProbesError
from router.errors import RouterError

if TYPE_CHECKING:
    from router.serving.settings import ServerSettings


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    #: The service starts, and something about it should be looked at.
    WARN = "warn"
    #: The service does not start, or cannot do what it was asked for.
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """Describes what one check found.

    Attributes:
        check: the name of the check.
        level: how bad it is.
        says: what was found.
        do: what to do about it; empty if nothing is to be done, or if `says` tells it.
    """

    check: str
    level: Level
    says: str
    do: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class WantedService:
    """Says which service the installation is for.

    Attributes:
        settings: what `elle serve` would serve with the same options.
        workers: the number of its processes.
    """

    settings: ServerSettings
    workers: int


#: Yields findings of the check with this name, for a service that is wanted.
Check = Callable[[str, WantedService], Iterable[Finding]]


def ok(check: str, says: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Level.OK, says)


def warn(check: str, says: str, do: str) -> Finding:
    """Return the finding that something should be looked at."""
    return Finding(check, Level.WARN, says, do)


def fail(check: str, says: str, do: str = "") -> Finding:
    """Return the finding that something does not work."""
    return Finding(check, Level.FAIL, says, do)


def run_checks(checks: Iterable[tuple[str, Check]], wanted: WantedService) -> Iterator[Finding]:
    """Run checks in order, and yield what each of them finds. An error ends only the check that raises it."""
    for name, check in checks:
        try:
            yield from check(name, wanted)
        except (RouterError, ProbesError) as error:
            yield fail(name, mask_secrets(str(error)))
        except Exception as error:
            # A machine may be odd in a way that nobody thought of; the other checks still say what they know.
            yield fail(
                name,
                f"this check ended with {type(error).__name__}, which is a defect of elle.",
                f"Report it with the output of `elle doctor --json` (Python {platform.python_version()}).",
            )

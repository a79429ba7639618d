"""Check what is installed: Python, the packages and their versions, the encoder's runtime, and the cache."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from probes.encoders.files import CACHE_DIR_VARIABLE, default_cache_dir
from probes.encoders.native_runtime import library_path, targets_here
from router.cli.checking.finding import Finding, WantedService, fail, ok, warn

_PACKAGE = "elle-router"

#: A requirement as package metadata write it: name, extras, clauses of versions, and a marker.
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?P<clauses>[^;]*)(?:;(?P<marker>.*))?")
_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9.]+)")


def check_python(name: str, _: WantedService) -> Iterator[Finding]:
    """Say which Python runs on which machine."""
    says = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    if sys.platform != "linux":
        yield warn(name, f"{says} The service is built and tested on Linux.", "Serve on Linux, or in a container.")
        return
    yield ok(name, says)


def check_packages(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look for the packages that deciding needs, and for those of the extras that the service needs."""
    try:
        required = importlib.metadata.requires(_PACKAGE) or []
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        yield fail(name, "the package elle-router is not installed; only its files are here.", "Run `pip install .`.")
        return
    by_extra: dict[str, list[str]] = {}
    for requirement in required:
        found = re.search(r"""extra\s*==\s*["']([a-z]+)["']""", requirement)
        by_extra.setdefault(found.group(1) if found else "", []).append(requirement)
    yield _of_extra(name, "", by_extra.get("", []), f"elle-router {version} has all packages that it needs.")
    needed = dict(_needed_extras(wanted))
    for extra, why in needed.items():
        yield _of_extra(name, extra, by_extra.get(extra, []), f"the extra {extra} is installed, which {why} needs.")
    others = sorted(by_extra.keys() - needed.keys() - {"", "all", "dev"})
    absent = [extra for extra in others if any(map(_fault_of, by_extra[extra]))]
    if absent:
        yield ok(name, f"not installed, and not needed for these options: the extras {', '.join(absent)}.")


def _of_extra(name: str, extra: str, requirements: list[str], praise: str) -> Finding:
    faults = [fault for requirement in requirements if (fault := _fault_of(requirement))]
    if not faults:
        return ok(name, praise)
    what = f"{_PACKAGE}[{extra}]" if extra else _PACKAGE
    return fail(name, f"{what} lacks {', '.join(faults)}.", f"Run `pip install '{what}'`.")


def _needed_extras(wanted: WantedService) -> Iterator[tuple[str, str]]:
    settings = wanted.settings
    yield "serve", "the encoder"
    if settings.http is not None:
        yield "dispatch", "--http"
    if settings.doors:
        yield "envoy", "--ext-proc"
    if settings.admin_port is not None:
        yield "admin", "--admin-port"
    if settings.identity.jwt is not None:
        yield "jwt", "--jwks"
    if settings.traces is not None:
        yield "otel", "--otlp-endpoint"
    if settings.ledger is not None or "://" in str(settings.store or ""):
        yield "ledger", "--ledger or --store"


def _fault_of(requirement: str) -> str:
    """Return the package of a requirement if it is missing or of a wrong version; else an empty text."""
    parts = _REQUIREMENT.match(requirement)
    if parts is None:
        return ""
    try:
        found = importlib.metadata.version(parts["name"])
    except importlib.metadata.PackageNotFoundError:
        return parts["name"]
    fits = all(_fits(found, sign, bound) for sign, bound in _CLAUSE.findall(parts["clauses"]))
    return "" if fits else f"{parts['name']}{parts['clauses'].strip()} (found {found})"


def _fits(found: str, sign: str, bound: str) -> bool:
    here, there = _numbers(found), _numbers(bound)
    length = max(len(here), len(there))
    here, there = (one + (0,) * (length - len(one)) for one in (here, there))
    return {
        ">=": here >= there,
        "<=": here <= there,
        ">": here > there,
        "<": here < there,
        "==": here == there,
        "!=": here != there,
    }[sign]


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, release.group().split("."))) if release else ()


def check_runtime(name: str, _: WantedService) -> Iterator[Finding]:
    """Say which runtime computes the encoder, and what its processor can do."""
    targets = targets_here()
    if targets:
        yield ok(name, f"the native runtime is compiled, and the processor has {targets[0].name.upper()}.")
        return
    if library_path() is None:
        says, do = "the native runtime is not compiled", "Install the package again where a C compiler is"
    else:
        says, do = "the processor has no AVX2, which the native runtime needs", "Serve on x86-64 with AVX2"
    yield warn(
        name,
        f"{says}; ONNX Runtime serves instead, which is slower and rounds otherwise.",
        f"{do}, or fit and certify policies on this machine.",
    )


def check_cache(name: str, _: WantedService) -> Iterator[Finding]:
    """Look whether exported encoders can be kept."""
    cache = default_cache_dir()
    do = f"Set {CACHE_DIR_VARIABLE} to a folder that can be written to; otherwise each start exports the encoder anew."
    if cache is None:
        yield warn(name, "this user has no home, so nothing can be cached.", do)
    elif not is_writable(cache):
        yield warn(name, f"{cache} cannot be written to.", do)
    else:
        yield ok(name, f"{cache} can be written to.")
    if not os.access(tempfile.gettempdir(), os.W_OK):
        yield warn(name, "there is no folder for temporary files.", "Set TMPDIR to a folder that can be written to.")


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written to, or can be made if it does not exist."""
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except (OSError, StopIteration):
        return False

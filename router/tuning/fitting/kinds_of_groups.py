"""Learn the known kinds of request from the groups of outcomes, with names that the user may give (`with_kinds`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.kinds.known_kinds import MAX_KINDS, kind_name_fault
from probes.kinds.learning import MIN_ROWS, KindRows, fit_kinds
from probes.probe import DifficultyProbe
from router.quoting import kind_of, quoted
from router.tuning.outcomes.datasets import Outcomes
from router.yaml_file import read_yaml


def read_kind_names(path: Path, outcomes: Outcomes) -> dict[str, str]:
    """Return the names of kinds in a YAML or JSON file, by group. Several groups may have one name.

    For example: `{"gsm8k": "school mathematics in words"}`.

    Raises ConfigError for a file that is no YAML, and DataError for names that cannot be used and for unknown groups.
    """
    found = read_yaml(path, "file of kind names")
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{path} must map groups to names of kinds, as in `gsm8k: school mathematics`.")
    names, groups = {}, sorted(set(outcomes.groups) - {""})
    for key, name in found.items():
        group = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
        if not isinstance(group, str) or group not in groups:
            close = get_close_matches(group, groups, 1) if isinstance(group, str) else []
            near = f"; did you mean {quoted(close[0])}?" if close else "."
            raise DataError(f"{path} must name groups of the data; the column group has no {quoted(key)}{near}")
        if not isinstance(name, str):
            raise DataError(f"{path}: the name of group {quoted(group)} must be text, got {kind_of(name)}.")
        if fault := kind_name_fault(name):
            raise DataError(f"{path}: the name of group {quoted(group)} must {fault}.")
        names[group] = name
    return names


def with_kinds(
    probe: DifficultyProbe, outcomes: Outcomes, features: npt.NDArray[np.float32], names: Mapping[str, str]
) -> tuple[DifficultyProbe, list[str]]:
    """Return the probe with the kinds that the groups of its outcomes stand for, and notes on them.

    features: (n, d) of the prompts. names: by group; a group that is not named is the name of its own kind. A probe
    whose data have no kinds keeps those that it has from the probe it was adapted from.
    """
    kinds = [names.get(group, group) for group in outcomes.groups]
    known = fit_kinds(KindRows(features, kinds, outcomes.texts))
    if known is None:
        few = f"no kinds of request are known: fewer than two groups have {MIN_ROWS} prompts"
        return probe, [few] if any(outcomes.groups) and probe.kinds is None else []
    notes = [f"{len(known.names)} kinds of request are known from the column group"]
    if left := len({kind for kind in kinds if kind} - set(known.names)):
        notes.append(
            f"{left} kinds are not known: they have fewer than {MIN_ROWS} prompts, a name that is too long, or are "
            f"beyond the {MAX_KINDS} largest"
        )
    return replace(probe, kinds=known), notes

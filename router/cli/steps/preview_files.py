"""The steps of `elle preview`: read a policy and a log, replay the log, and write the page if one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.atomic_write import write_file
from probes.errors import DataError
from router.policies.loading import ServedPolicy, load_policy
from router.quoting import quoted
from router.tuning.outcomes.adapters.table import parse_columns
from router.tuning.previewing.logged_requests import read_log
from router.tuning.previewing.preview import Preview, PreviewOptions, preview_policy
from router.tuning.previewing.preview_html import preview_page
from router.tuning.previewing.replay import ReplayProgress


@dataclass(frozen=True)
class PreviewFiles:
    """Names the files of a preview.

    Attributes:
        log: files or folders of the log. format: the format of the log, as `elle import` names it; None recognises it.
        columns: for plain tables `NAME=COLUMN`, as in `prompt=Frage`.
        policy: the policy file. profile: a profile of the policy to preview in its place; None takes the policy.
        html: the page to write; None writes none.
    """

    log: Sequence[Path]
    policy: Path
    format: str | None = None
    columns: Sequence[str] = ()
    profile: str | None = None
    html: Path | None = None


def preview_files(files: PreviewFiles, options: PreviewOptions, on_progress: ReplayProgress | None) -> Preview:
    """Replay a log through a policy, and write the page if one is asked for.

    Raises ArtifactError, ConfigError, DataError or EncoderError before anything is written.
    """
    served = _profile(load_policy(files.policy), files.profile)
    log = read_log(files.log, files.format, parse_columns(files.columns), served.marks)
    found = preview_policy(served, log, options, on_progress)
    if files.html is not None:
        write_file(files.html, preview_page(found).encode("utf-8", "replace"))
    return found


def _profile(served: ServedPolicy, name: str | None) -> ServedPolicy:
    if name is None:
        return served
    wanted = f"{served.ref.name}:{name}"
    try:
        return next(one for one in served.profiles() if one.ref.name == wanted)
    except StopIteration:
        known = ", ".join(served.rules.file.profiles) or "it has none"
        raise DataError(f"--profile must be a profile of the policy ({known}), got {quoted(name)}.") from None

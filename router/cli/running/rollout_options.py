"""The options with which `elle serve` tries a new policy: in shadow, or as a canary (`rollout_serving_options`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from router.cli.options import PATH

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The names under which `elle serve` receives these options.
NAMES = ("shadows", "canary")


def rollout_serving_options(command: _Function) -> _Function:
    """Give `elle serve` the options that try a new policy, in the order of their help."""
    for option in reversed(
        (
            click.option(
                "--shadow",
                "shadows",
                type=PATH,
                multiple=True,
                help="A policy file that decides every request too, without acting on it; repeatable. The metrics say "
                "how it differs.",
            ),
            click.option(
                "--canary",
                type=PATH,
                help="Follow the canary in this file, which `elle canary` writes: another policy of --policy decides a "
                "share of the requests.",
            ),
        )
    ):
        command = option(command)
    return command

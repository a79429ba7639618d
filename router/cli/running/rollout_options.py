"""The options with which `elle serve` tries a new policy: in shadow, or as a canary (`rollout_serving_options`)."""

from __future__ import annotations

import click

from router.cli.options import PATH, with_options

#: The names under which `elle serve` receives these options.
NAMES = ("shadows", "canary")


#: Gives `elle serve` the options that try a new policy.
rollout_serving_options = with_options(
    click.option(
        "--shadow",
        "shadows",
        type=PATH,
        multiple=True,
        help="A policy file that decides every request of the default policy too, without acting on it; repeatable. "
        "The metrics say how it differs.",
    ),
    click.option(
        "--canary",
        type=PATH,
        help="Follow the canary in this file, which `elle canary` writes: another policy of --policy decides a share "
        "of the requests.",
    ),
)

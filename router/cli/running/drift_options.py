"""The options that say how `elle serve` watches the traffic for drift (`drift_serving_options`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from router.cli.options import PATH, FiniteRange, with_options

if TYPE_CHECKING:
    from router.drift.settings import DriftSettings

#: The options that say how blocks are formed, which verbs that read a ledger have too.
_BLOCKS = (
    click.option(
        "--drift-block-hours",
        default=24.0,
        show_default=True,
        type=FiniteRange(0, 8760),
        help="The shortest block of requests that is compared with the baseline, in hours.",
    ),
    click.option(
        "--drift-block-requests",
        default=1_000,
        show_default=True,
        type=click.IntRange(50),
        help="The fewest requests of a block.",
    ),
    click.option(
        "--drift-baseline-blocks",
        default=7,
        show_default=True,
        type=click.IntRange(1, 366),
        help="The number of blocks, from the first request on, that form the baseline.",
    ),
)

#: The names under which a verb receives these options.
BLOCK_NAMES = ("drift_block_hours", "drift_block_requests", "drift_baseline_blocks")

#: The names under which `elle serve` receives all options of drift.
NAMES = ("drift", "drift_state", *BLOCK_NAMES)

_SERVING = (
    click.option(
        "--drift/--no-drift",
        default=True,
        show_default=True,
        help="Whether the traffic is compared with that of the first days, and an alarm logged when it has changed.",
    ),
    click.option(
        "--drift-state",
        type=PATH,
        help="The file that keeps the baseline over restarts; worker k > 0 adds .k to its name. Default: it is lost.",
    ),
    *_BLOCKS,
)


#: Gives `elle serve` the options of drift.
drift_serving_options = with_options(*_SERVING)

#: Gives a verb the options that say how blocks are formed.
block_options = with_options(*_BLOCKS)


def drift_settings(options: dict[str, Any]) -> DriftSettings:
    """Take the options of blocks out of `options`, and return the settings that they stand for."""
    from router.drift.settings import DriftSettings

    hours, requests, baseline = (options.pop(name) for name in BLOCK_NAMES)
    return DriftSettings(block_s=hours * 3600, block_requests=requests, baseline_blocks=baseline)

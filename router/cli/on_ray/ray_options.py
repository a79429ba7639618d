"""The options that say whether, and in how many replicas, `elle serve` serves on Ray (`ray_serving_options`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from probes.shards.choosing import ENGINES
from router.cli.options import FiniteRange, with_options

if TYPE_CHECKING:
    from router.serving.settings import ServerSettings

#: The options by the names of the fields of `Scale`.
_SCALE = ("least", "most", "ongoing", "up_s", "down_s")

#: The names of all options, for the titles of `--help`.
NAMES = ("engine", *_SCALE)

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="local",
        show_default=True,
        help="Serve in processes of this machine, or as an application of Ray Serve, on the cluster that RAY_ADDRESS "
        "names or one that is started here.",
    ),
    click.option("--min-replicas", "least", type=click.IntRange(1), help="With Ray: the fewest replicas. Default: 1."),
    click.option("--max-replicas", "most", type=click.IntRange(1), help="With Ray: the most replicas. Default: 4."),
    click.option(
        "--ongoing",
        type=FiniteRange(0, min_open=True),
        help="With Ray: the number of requests that one replica is to work on at a time. Default: 2.",
    ),
    click.option(
        "--scale-up-s",
        "up_s",
        type=FiniteRange(0),
        help="With Ray: the seconds of more load after which a replica is added. Default: 5.",
    ),
    click.option(
        "--scale-down-s",
        "down_s",
        type=FiniteRange(0),
        help="With Ray: the seconds of less load after which a replica ends. Default: 60.",
    ),
)


#: Gives a command these options.
ray_serving_options = with_options(*_OPTIONS)


def is_wanted(options: Mapping[str, Any]) -> bool:
    """Return whether the options ask for Ray. Raises click.UsageError for replicas without Ray."""
    if options["engine"] == "ray":
        return True
    if any(options[name] is not None for name in _SCALE):
        raise click.UsageError("the options for replicas on Ray need --engine ray.")
    return False


def serve(settings: ServerSettings, workers: int, options: Mapping[str, Any]) -> None:
    """Serve on Ray until a signal comes; see `serve_on_ray`. Raises click.UsageError if there are --workers too."""
    from router.observing.logs import line_of
    from router.serving.on_ray.application import Scale, serve_on_ray

    if workers > 1:
        raise click.UsageError("--workers is for one machine; with --engine ray give --max-replicas.")

    def announce(address: str) -> None:
        click.echo(line_of(settings.log, f"serving by Ray on {address}"), err=True)

    scale = Scale(**{name: options[name] for name in _SCALE if options[name] is not None})
    serve_on_ray(settings, scale, announce)

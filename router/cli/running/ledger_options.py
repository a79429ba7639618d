"""The options that say where the ledger is and what it keeps (`serving_options`, `LEDGER`, `since_option`)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import click

from router.cli.options import PATH, FiniteRange, with_options
from router.errors import ConfigError
from router.ledger.settings import LedgerSettings
from router.quoting import quoted

#: For each option of `elle serve` the field of `LedgerSettings`.
_FIELDS = {
    "ledger_key": "key_file",
    "ledger_prompts": "keep_prompts",
    "ledger_features": "keep_features",
    "ledger_keep_days": "keep_days",
    "ledger_spool": "spool_dir",
}

#: The names under which `elle serve` receives the options of the ledger.
NAMES = ("ledger", *_FIELDS, "ledger_spool_mb")

_PLACE = "the path of an SQLite file, or a URL postgresql://USER@HOST/DATABASE"


class LedgerPlace(click.types.StringParamType):
    """An option that names a ledger: the path of a file or a URL of PostgreSQL. Anything else is wrong usage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the place as it was given."""
        place = str(super().convert(value, param, ctx))
        if not place.strip():
            self.fail(f"it is empty; give {_PLACE}.", param, ctx)
        settings = LedgerSettings(place)
        if not settings.is_sqlite:
            try:
                _ = settings.url
            except ConfigError as error:
                self.fail(str(error), param, ctx)
        return place


LEDGER_PLACE = LedgerPlace()

#: The option of the verbs that read a ledger.
LEDGER = click.option(
    "--ledger",
    type=LEDGER_PLACE,
    required=True,
    metavar="PATH|URL",
    envvar="ELLE_LEDGER",
    show_envvar=True,
    help=f"The ledger: {_PLACE}.",
)

_SERVING = (
    click.option(
        "--ledger",
        type=LEDGER_PLACE,
        metavar="PATH|URL",
        help=f"Record every decision, answer and feedback: {_PLACE}. A URL with a password belongs into ELLE_LEDGER.",
    ),
    click.option(
        "--ledger-key",
        type=PATH,
        help="The file with the secret key of the ledger's digests. Default: PATH.key, which is made.",
    ),
    click.option(
        "--ledger-prompts", is_flag=True, help="Also keep the text of prompts; otherwise only a keyed digest."
    ),
    click.option("--ledger-features", is_flag=True, help="Also keep the features of prompts, in float16."),
    click.option(
        "--ledger-keep-days",
        type=FiniteRange(0, 36500, min_open=True),
        help="Delete what is older than this many days. Default: nothing is deleted.",
    ),
    click.option(
        "--ledger-spool",
        type=PATH,
        help="The folder for rows that the database does not take now; best on another disk. Default: PATH.spool.",
    ),
    click.option(
        "--ledger-spool-mb",
        type=click.IntRange(1),
        default=256,
        show_default=True,
        help="The most megabytes of that folder. Beyond them rows are dropped and counted.",
    ),
)


#: Gives `elle serve` the options of its ledger.
serving_options = with_options(*_SERVING)


_DAYS = "2026-11-01 or 2026-11-01T12:30:00"


class _Since(click.DateTime):
    """A day or a time of day. Anything else is told by an example, and not by the codes of the formats."""

    def __init__(self) -> None:
        super().__init__(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the time that a word of the command line names."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{quoted(str(value))} is no day or time (UTC), such as {_DAYS}.", param, ctx)


def since_option(help_text: str) -> Callable[[Any], Any]:
    """Return a decorator that gives a command `--since`, a day or a time of day in UTC."""
    return click.option("--since", type=_Since(), metavar="DATE", help=f"{help_text} As in {_DAYS}.")


def seconds(time: datetime.datetime | None) -> float | None:
    """Return a time of the command line, which is UTC, in seconds since 1970."""
    return None if time is None else time.replace(tzinfo=datetime.UTC).timestamp()


def ledger_settings(options: dict[str, Any]) -> LedgerSettings | None:
    """Take the options of the ledger out of `options`, and return its settings, or None if there is no ledger."""
    from router.ledger.opening import require_installed

    asked = {name: options.pop(name) for name in NAMES}
    place, spool_mb = asked.pop("ledger"), asked.pop("ledger_spool_mb")
    if place is None:
        if any(asked.values()):
            raise click.UsageError("the options --ledger-... need --ledger.")
        return None
    fields = {_FIELDS[name]: value for name, value in asked.items()}
    settings = LedgerSettings(place, spool_bytes=spool_mb * 1024 * 1024, **fields)
    require_installed(settings)
    return settings

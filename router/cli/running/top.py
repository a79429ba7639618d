"""`elle top`: show in a terminal what the operator's page shows."""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.cli.options import JSON, FiniteRange
from router.cli.output import print_json, stdout
from router.errors import ConfigError

#: The environment variable of the token for the admin port. As an option it would be seen in the list of processes.
TOKEN_VARIABLE = "ELLE_ADMIN_TOKEN"  # noqa: S105

_TIMEOUT_S = 5.0

#: Most callers that are shown, so that a screen holds them.
_MOST_CALLERS = 10


@click.command("top", short_help="Show in the terminal what a running service decides.")
@click.option(
    "--url",
    metavar="URL",
    default="http://127.0.0.1:9465",
    show_default=True,
    help="The address of the operator's page.",
)
@click.option(
    "--period",
    default="1h",
    show_default=True,
    type=click.Choice(["15m", "1h", "24h", "all"]),
    help="The time that figures are about.",
)
@click.option("--every-s", default=2.0, show_default=True, type=FiniteRange(0.5), help="Seconds between updates.")
@click.option("--once", is_flag=True, help="Print the figures once, and end.")
@JSON
def top_verb(url: str, period: str, every_s: float, once: bool, as_json: bool) -> None:
    """Show the figures of a service that was started with --admin-port, again and again until Ctrl-C.

    If the service asks for tokens, ELLE_ADMIN_TOKEN holds one with the scope admin.
    """
    told = _read(url, period)
    if as_json:
        print_json(told)
        return
    if once:
        stdout().print(screen(told))
        return
    try:
        with Live(screen(told), console=stdout(), screen=True) as live:
            while True:
                time.sleep(every_s)
                live.update(_newest(url, period))
    except KeyboardInterrupt:
        return


def _newest(url: str, period: str) -> RenderableType:
    """Return what is shown now. A service that is started anew is waited for."""
    try:
        return screen(_read(url, period))
    except ConfigError as error:
        return Text(f"! {error}", style="bold red")


def _read(url: str, period: str) -> dict[str, Any]:
    """Return the figures of a service. Raises ConfigError, which says what to do."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError("--url must begin with http:// or https://.")
    request = urllib.request.Request(f"{url.rstrip('/')}/status.json?period={period}")  # noqa: S310
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        request.add_header("authorization", f"Bearer {token}")
    try:
        # A proxy for the web at large has no business with this page.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        error.close()
        hint = f"set {TOKEN_VARIABLE} to a token with the scope admin" if error.code in {401, 403} else "check --url"
        raise ConfigError(f"{url} answers with status {error.code}; {hint}.") from error
    except (OSError, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise ConfigError(
                f"the certificate of {url} is not trusted; set SSL_CERT_FILE to the certificate of whoever issued it."
            ) from error
        raise ConfigError(
            f"no operator's page answers on {url}; start the service with --admin-port, and give its address by --url."
        ) from error


def screen(told: dict[str, Any]) -> RenderableType:
    """Return what is shown for the figures of a service."""
    now, total, costs = told["now"], told["period_total"], told["costs"]
    head = Text.assemble(
        ("ELLE Router", "bold"),
        f"  {told['workers']} serving, {told['restarts']} replaced, {now['per_second']:.1f} decisions a second now\n",
        f"{told['period']}: {total['decisions']:,.0f} decisions, decided share {_percent(total['decided_share'])}, "
        f"{total['refused']:,.0f} refused, 99 % within {_ms(total['p99_s'])}\n",
        f"saved {_percent(costs['saved_share'])} (${costs['saved_usd']:,.4f}) against the last tier: "
        f"${costs['decided_usd']:,.4f} instead of ${costs['strong_usd']:,.4f}, expected costs",
    )
    alarms = [Text(f"! {one['what']} {one['do']}", style="bold red") for one in told["alarms"]]
    candidates = [
        (
            one["name"],
            f"{one['decisions']:,.0f}",
            _percent(one["share"]),
            str(one["answered"]),
            _ms(one["answer_p95_s"]),
        )
        for one in told["candidates"]
    ]
    callers = [
        (one["name"], f"{one['decisions']:,.0f}", _percent(one["strong_share"]), f"${one['usd']:,.4f}")
        for one in told["callers"][:_MOST_CALLERS]
    ]
    reasons = [(one["code"], f"{one['decisions']:,.0f}", _percent(one["share"])) for one in told["reasons"]]
    served = [(one["policy"], one["version"], _certificate(one["certificate_days"])) for one in told["served"]]
    return Group(
        head,
        *alarms,
        _table(("candidate", "chosen", "share", "answered", "answer, 95 %"), candidates),
        _table(("reason", "decisions", "share"), reasons),
        _table(("policy", "version", "certificate"), served),
        *([_table(("token", "decisions", "strong", "answers cost"), callers)] if callers else []),
    )


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:,.1f} ms"


def _certificate(days: int | None) -> str:
    return "none" if days is None else "EXPIRED" if days < 0 else f"{days} days left"

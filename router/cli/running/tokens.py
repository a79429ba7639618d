"""`elle token`: make tokens for the callers of the service, list them and revoke them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from probes.errors import DataError
from router.cli.options import JSON, PATH, FiniteRange, with_options
from router.cli.output import print_json, stdout
from router.identity.principal import BeyondLimit, Scope, TokenLimits
from router.identity.token_book import Token, TokenBook, changing, new_token, now_utc, require_new_name
from router.quoting import did_you_mean

_TOKENS = click.option(
    "--tokens",
    type=PATH,
    required=True,
    envvar="ELLE_TOKENS",
    show_envvar=True,
    help="The file of tokens. It holds digests only, and a running service reads it again when it changes.",
)
_LIMITS = (
    click.option(
        "--requests-per-second",
        type=FiniteRange(0, 1e6, min_open=True),
        help="The most requests a second; more are refused.",
    ),
    click.option(
        "--requests-per-minute",
        type=FiniteRange(0, 1e8, min_open=True),
        help="The most requests a minute; more are refused.",
    ),
    click.option(
        "--strong-share",
        type=FiniteRange(0, 1),
        help="The share of decisions that may go above the cheapest candidate that can answer.",
    ),
    click.option("--usd-per-day", type=FiniteRange(0), help="The most USD that the answers of a day may cost."),
    click.option(
        "--beyond",
        type=click.Choice([one.value for one in BeyondLimit]),
        default=BeyondLimit.REFUSE.value,
        show_default=True,
        help="What happens beyond --strong-share and --usd-per-day: the request is refused, or the cheapest candidate "
        "that can answer it does.",
    ),
)


@click.group("token", short_help="Make, list and revoke the tokens of callers.")
def token_verb() -> None:
    """Make, list and revoke the tokens by which callers of the service prove who they are."""


@token_verb.command("create", short_help="Make a token and show it once.")
@click.argument("name")
@_TOKENS
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([one.value for one in Scope]),
    default=("route", "complete"),
    show_default=True,
    help="What the token allows; repeatable.",
)
@click.option(
    "--expires-in-days",
    type=FiniteRange(0, 36500, min_open=True),
    help="The days after which the token is useless. Default: it never expires.",
)
@with_options(*_LIMITS)
@JSON
def create_verb(name: str, tokens: Path, scopes: tuple[str, ...], **rest: Any) -> None:
    """Make a token for NAME and print it. It is shown now and never again, because only its digest is kept."""
    days, as_json = rest.pop("expires_in_days"), rest.pop("as_json")
    expires = None if days is None else now_utc() + datetime.timedelta(days=days)
    with changing(tokens) as known:
        require_new_name(name, known)
        text, token = new_token(name, map(Scope, scopes), expires_at=expires, limits=TokenLimits.model_validate(rest))
        known.append(token)
    if as_json:
        print_json({"token": text} | _shown(token))
        return
    click.echo(text)
    click.echo(f"This is the token {token.id} of {name!r}. Keep it now: it is not shown again.", err=True)


@token_verb.command("list", short_help="List tokens, without the tokens themselves.")
@_TOKENS
@JSON
def list_verb(tokens: Path, as_json: bool) -> None:
    """List the tokens of a file: whom they are for, what they allow, and whether they can be used."""
    shown = [_shown(token) for token in TokenBook.load(tokens).tokens]
    if as_json:
        print_json({"tokens": shown})
        return
    table = Table("id", "name", "state", "scopes", "expires", "limits")
    for one in shown:
        limits = ", ".join(f"{key} {value}" for key, value in one["limits"].items())
        table.add_row(
            one["id"], one["name"], one["state"], " ".join(one["scopes"]), one["expires_at"] or "never", limits
        )
    stdout().print(table)


@token_verb.command("revoke", short_help="Make a token useless.")
@click.argument("token")
@_TOKENS
@JSON
def revoke_verb(token: str, tokens: Path, as_json: bool) -> None:
    """Revoke TOKEN, which is the id or the name of one. A running service refuses it within seconds."""
    TokenBook.load(tokens)  # Without a file there is nothing to revoke; `changing` would begin one.
    with changing(tokens) as known:
        index = next((i for i, one in enumerate(known) if token in (one.id, one.name)), None)
        if index is None:
            hint = did_you_mean(token, [value for one in known for value in (one.id, one.name)])
            raise DataError(f"no token in {tokens} has this id or name.{hint} `elle token list` shows all.")
        one = known[index]
        known[index] = one.model_copy(update={"revoked_at": one.revoked_at or now_utc()})
    if as_json:
        print_json(_shown(known[index]))
    click.echo(f"The token {one.id} of {one.name!r} is revoked.", err=True)


def _shown(token: Token) -> dict[str, Any]:
    """Return what people may see of a token."""
    found = token.model_dump(mode="json", exclude={"sha256", "limits"})
    limits = token.limits.model_dump(mode="json", exclude_none=True)
    if token.limits.strong_share is None and token.limits.usd_per_day is None:
        del limits["beyond"]
    return found | {"scopes": sorted(token.scopes), "limits": limits, "state": token.state(now_utc())}

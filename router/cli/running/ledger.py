"""`elle ledger`: bring a ledger up to date, print its figures, and write it as parquet or as a log of prompts."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from probes.atomic_write import write_file
from router.cli.options import AUTHOR, JSON, PATH, output_option, seed_option
from router.cli.output import INCOMPLETE, print_json, progress_bars, stdout
from router.cli.running.ledger_options import LEDGER, seconds, since_option
from router.feedback.pieces import FeedbackAuthority
from router.ledger.settings import LedgerSettings
from router.money import usd_text
from router.plain_json import json_lines
from router.times import utc_text

if TYPE_CHECKING:
    from router.ledger.reader import LedgerReader

_SINCE = since_option("Only what was decided at this time (UTC) or later.")


@click.group("ledger", short_help="Look into the ledger of a service, or change it.")
def ledger_verb() -> None:
    """Look into the ledger that `elle serve --ledger` keeps, add grades to it, and remove rows from it."""


@ledger_verb.command("migrate", short_help="Make the tables, or bring them up to date.")
@LEDGER
@JSON
def migrate_verb(ledger: str, as_json: bool) -> None:
    """Make the tables of a ledger, or bring them to the version that this program knows. A service does so itself."""
    from router.ledger.opening import migrate_ledger

    before, after = migrate_ledger(LedgerSettings(ledger))
    if as_json:
        print_json({"before": before or None, "after": after})
    elif before == after:
        click.echo(f"The tables have the newest version, {after}.")
    else:
        click.echo(f"The tables went from {f'version {before}' if before else 'nothing'} to version {after}.")


@ledger_verb.command("stats", short_help="Print the figures of a ledger.")
@LEDGER
@_SINCE
@JSON
def stats_verb(ledger: str, since: datetime.datetime | None, as_json: bool) -> None:
    """Print how many decisions, answers and pieces of feedback a ledger holds, and what the answers cost."""
    with _reading(ledger) as reader:
        from router.ledger.stats import ledger_stats

        found = ledger_stats(reader, seconds(since))
    if as_json:
        print_json(found)
        return
    if not found["decisions"]:
        click.echo(f"The ledger holds no decisions{'' if since is None else ' from then on'}.")
    _print_stats(found)


@ledger_verb.command("export", short_help="Write the tables of a ledger as parquet.")
@LEDGER
@_SINCE
@output_option("The folder for decisions.parquet, outcomes.parquet, feedback.parquet and events.parquet.", folder=True)
@JSON
def export_verb(ledger: str, since: datetime.datetime | None, out: Path, as_json: bool) -> None:
    """Write the tables of a ledger as parquet files, in constant memory."""
    with _reading(ledger) as reader, progress_bars() as tell:
        from router.ledger.export import export_ledger

        written = export_ledger(reader, out, seconds(since), tell)
    if as_json:
        print_json(written)
    else:
        click.echo(f"{out}: {', '.join(f'{rows:,} {name}' for name, rows in written.items())}.")


@ledger_verb.command("sample", short_help="Draw prompts of a ledger for `elle collect`.")
@LEDGER
@_SINCE
@click.option("--n", default=200, show_default=True, type=click.IntRange(1, 1_000_000), help="The number of prompts.")
@seed_option("The seed of the draw.")
@click.option("--policy", metavar="NAME", help="Only prompts that this policy decided, such as that of a canary.")
@output_option("The file of prompts, as JSON lines.", suffix=".jsonl")
@JSON
def sample_verb(
    ledger: str, since: datetime.datetime | None, policy: str | None, out: Path, as_json: bool, **draw: int
) -> None:
    """Draw distinct prompts of a ledger and write them as a log, for `elle collect` to ask every candidate.

    It needs a ledger that keeps prompts (--ledger-prompts).
    """
    with _reading(ledger) as reader:
        from router.comparing.sampling import sampled_prompts
        from router.ledger.reader import Span

        rows = sampled_prompts(reader.decisions(Span(since=seconds(since), policy=policy)), **draw)
    write_file(out, json_lines(rows).encode(), mode=0o600)
    if as_json:
        print_json({"prompts": len(rows)})
    click.echo(f"{out}: {len(rows):,} prompts.", err=True)


@ledger_verb.command("label", short_help="Put the grades of OUTCOMES into a ledger.")
@click.argument("outcomes", nargs=-1, required=True, type=PATH)
@LEDGER
@click.option(
    "--authority",
    type=click.Choice([one.value for one in FeedbackAuthority]),
    default=FeedbackAuthority.JUDGE.value,
    show_default=True,
    help="Who graded. If two disagree about an answer, the higher authority counts.",
)
@click.option(
    "--source",
    metavar="NAME",
    default="elle collect",
    show_default=True,
    help="What graded, such as the name of a judge.",
)
@JSON
def ledger_label_verb(outcomes: tuple[Path, ...], ledger: str, authority: str, source: str, as_json: bool) -> None:
    """Put the grades of OUTCOMES, which `elle collect` makes of a sample of the ledger, into the ledger.

    `elle canary step` and `elle recalibrate --ledger` take them from there. Grades that are given again count once. The
    exit status is 3 if the ledger does not have some of the decisions or candidates.
    """
    from router.cli.updating.ledger_grades import label_ledger

    found = label_ledger(outcomes, ledger, authority=FeedbackAuthority(authority), source=source)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(f"{found.kept:,} grades are in the ledger.")
        if found.unknown_decisions:
            first = found.unknown_decisions[0]
            click.echo(f"{len(found.unknown_decisions):,} prompt_ids are no decisions of it, such as {first}.")
        if found.unknown_candidates:
            click.echo(f"No candidates of the policies that decided: {', '.join(found.unknown_candidates[:5])}.")
    if found.unknown_decisions or found.unknown_candidates:
        raise SystemExit(INCOMPLETE)


@ledger_verb.command("scores", short_help="Put the scores of a Langfuse export into a ledger.")
@click.argument("export", nargs=-1, required=True, type=PATH)
@LEDGER
@click.option("--score", metavar="NAME", help="Take the scores of this name only.")
@JSON
def ledger_scores_verb(export: tuple[Path, ...], ledger: str, score: str | None, as_json: bool) -> None:
    """Put the scores of a Langfuse EXPORT into a ledger, as feedback on the answers that callers got.

    The trace of a score must have the id of the decision or its x-request-id, or an observation of it in EXPORT must
    name the decision, as LiteLLM's callback for Langfuse does. Only NUMERIC scores from 0 to 1 and BOOLEAN ones are
    taken. The exit status is 3 if some are left out.
    """
    from router.cli.updating.langfuse_scores import keep_langfuse_scores

    found = keep_langfuse_scores(export, ledger, score=score)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(f"{found.kept:,} scores are in the ledger.")
        for reason, n_scores in found.left_out.items():
            click.echo(f"{n_scores:,} are left out: {reason}.")
    if found.left_out:
        raise SystemExit(INCOMPLETE)


@ledger_verb.command("forget", short_help="Remove what a person or a session left in a ledger.")
@LEDGER
@click.option(
    "--caller", "callers", multiple=True, metavar="CALLER", help="Whose rows go, as token:ID or jwt:NAME; repeatable."
)
@click.option("--session", "sessions", multiple=True, metavar="ID", help="The id of a session that goes; repeatable.")
@click.option("--decision", "decisions", multiple=True, metavar="ID", help="The id of one decision; repeatable.")
@click.option("--ledger-key", type=PATH, help="The file of the ledger's key. Default: PATH.key.")
@click.option("--ledger-spool", type=PATH, help="The folder of the spool. Default: PATH.spool.")
@AUTHOR
@JSON
def ledger_forget_verb(
    ledger: str, ledger_key: Path | None, ledger_spool: Path | None, as_json: bool, **who: Any
) -> None:
    """Remove decisions with all answers to them and all feedback, from the database and from its spool, for ever.

    The audit trail says how many rows went, but not whose. The exit status is 3 if there were none, or if the service
    writes to the spool now, so that rows may be left in it.
    """
    if not (who["callers"] or who["sessions"] or who["decisions"]):
        raise click.UsageError("give --caller, --session or --decision.")
    from router.cli.updating.forget_rows import forget_rows

    found = forget_rows(LedgerSettings(ledger, key_file=ledger_key, spool_dir=ledger_spool), **who)
    n_rows = found.decisions + found.outcomes + found.feedback + found.spooled
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(
            f"{found.decisions:,} decisions, {found.outcomes:,} answers, {found.feedback:,} pieces of feedback and "
            f"{found.spooled:,} rows of the spool are removed."
        )
        if not n_rows:
            click.echo(
                "Nothing was found. Check the ids of decisions and sessions, that a caller is written as token:ID with "
                "an id that `elle token list` shows, and that --ledger-key is the key of the service."
            )
        if found.busy_segments:
            click.echo("The service writes to the spool now. Run this again when its database is back.")
    if found.busy_segments or not n_rows:
        raise SystemExit(INCOMPLETE)


@contextmanager
def _reading(ledger: str) -> Iterator[LedgerReader]:
    from router.ledger.opening import opened_reader

    with opened_reader(LedgerSettings(ledger)) as reader:
        yield reader


def _print_stats(found: dict[str, Any]) -> None:
    if found["decisions"]:
        first, last = (utc_text(found[name], " ") for name in ("first_at", "last_at"))
        click.echo(
            f"{found['decisions']:,} decisions from {first} to {last}. The router abstained on "
            f"{found['abstained_share']:.1%} of them; a decision took {found['mean_total_s'] * 1000:.1f} ms on average."
        )
    for rows, column in (("by_policy", "policy"), ("by_candidate", "chosen"), ("by_reason", "reason")):
        names = (f"{row[column]} {row.get('policy_digest', '')[:12]}".rstrip() for row in found[rows])
        _print_table((column, "decisions"), zip(names, (f"{row['decisions']:,}" for row in found[rows]), strict=True))
    _print_table(
        ("answers", "count", "by another candidate", "cost", "mean seconds"),
        (
            (row["outcome"], f"{row['answers']:,}", f"{row['fell_back']:,}", _cost(row), f"{row['mean_total_s']:.2f}")
            for row in found["answers"]
        ),
    )
    _print_table(
        ("feedback", "authority", "pieces", "mean value"),
        (
            (row["kind"], row["authority"], f"{row['pieces']:,}", f"{row['mean_value']:.3f}")
            for row in found["feedback"]
        ),
    )
    if found["rows_dropped"]:
        click.echo(f"WARNING: {found['rows_dropped']:,} rows were dropped, because nothing could take them.")


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, or nothing if it has no rows."""
    table = Table(*titles)
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        stdout().print(table)


def _cost(row: Mapping[str, Any]) -> str:
    if row["cost_usd"] is None:
        return "unknown"
    known, answers = row["with_known_cost"], row["answers"]
    return usd_text(row["cost_usd"]) if known == answers else f"{usd_text(row['cost_usd'])} ({known:,} are known)"

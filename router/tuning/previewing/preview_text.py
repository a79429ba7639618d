"""Show a preview to people: one paragraph that answers the question, a row for each way to answer, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console

from probes.measures.bootstrap import Interval
from router.money import amount_text, usd_text
from router.tuning.previewing.preview import POLICY, Preview
from router.tuning.previewing.savings import LEAST_SESSIONS, WayFigures
from router.tuning.previewing.slices_of_log import DecisionToRead, LogPart
from router.tuning.reporting.policy_text import figure_table

#: Columns of the table of ways to answer, and of the table of parts of the log.
WAY_HEADERS = ("way to answer", "answered by", "USD", "saved", "saved of paid", "cached input", "switches")
PART_HEADERS = ("part", "requests", "answered by", "USD", "saved", "abstained")

#: Rows that were left out, of which the text names the places; the JSON names more.
_SHOWN = 5


def preview_sentences(found: Preview) -> tuple[str, ...]:
    """Return the answer in a few sentences: who would have answered how much, at what cost, against what."""
    return tuple(_sentences(found))


def _sentences(found: Preview) -> Iterator[str]:
    own = found.own
    shares = ", ".join(f"{share:.1%} by {name}" for name, share in own.shares.items())
    period = "" if found.period is None else f", {found.period[0]} to {found.period[1]}"
    answered = found.n - found.n_refused
    sessions = "no session has several"
    if found.n_sessions:
        sessions = f"{found.n_sessions:,} sessions of several requests hold {found.n_in_sessions:,}"
    yield f"Of {found.n:,} requests ({sessions}{period}) the policy {found.policy!r} would have had {answered:,}"
    yield f"answered: {shares}."
    strong = found.always_strong
    if own.cost_usd is None or strong.cost_usd is None or own.saved is None:
        yield "What that costs is not known, because the policy does not state every price."
        return
    yield (
        f"That costs {usd_text(own.cost_usd)}; always {found.strong} costs {usd_text(strong.cost_usd)}, so "
        f"{_saving(own.saved)}."
    )
    cached = any(one.cached_share for one in found.ways)
    yield "Prompt caches are counted on both sides." if cached else "No input is billed as cached."
    if found.paid is not None and found.paid.policy_usd is not None and own.saved_of_paid is not None:
        yield (
            f"The log says that {usd_text(found.paid.usd)} was paid for {found.paid.n:,} requests; the policy "
            f"would have paid {usd_text(found.paid.policy_usd)} for these, so {_saving(own.saved_of_paid)}."
        )
    switching = next((one for one in found.ways if one.name == "always switch"), None)
    if cached and switching is not None and switching.saved is not None and found.seeming_saving is not None:
        yield (
            f"A calculation without prompt caches would promise {found.seeming_saving:.1%} for deciding each request "
            f"by itself; with caches that saves {switching.saved.value:.1%}."
        )


#: Stands in place of an interval.
_TOO_FEW = f"fewer than {LEAST_SESSIONS} sessions, too few for an interval"


def print_preview(found: Preview, console: Console) -> None:
    """Print a preview for people. Texts of the log are printed as they are, without markup."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False)

    say(" ".join(preview_sentences(found)))
    say("")
    console.print(figure_table(WAY_HEADERS, [way_cells(one) for one in found.ways]))
    say(f"Reasons: {counted(found.reasons)}.")
    if found.refused:
        say(f"Refused: {counted(found.refused)}.")
    for way, parts in found.parts.items():
        say(f"\nBy {way}:")
        rows = [part_cells(name, part) for name, part in parts.items()]
        console.print(figure_table((way, *PART_HEADERS[1:]), rows))
    for sort, decisions in found.to_read.items():
        if decisions:
            say(f"\nDecisions to read, {sort}:")
        for one in decisions:
            say(f"  {decision_line(one)}")
            if one.text is not None:
                say(f"    {one.text}", "dim")
    say("\nAssumed:")
    for line in (*found.assumed, *left_out_lines(found)):
        say(f"  {line}", "dim")


def left_out_lines(found: Preview) -> tuple[str, ...]:
    """Return a sentence for each kind of row that was left out, for the first of them, and for each note."""
    lines = [f"Left out, {why}: {count:,}." for why, count in found.left_out.items()]
    first = "; ".join(found.first_left_out[:_SHOWN])
    lines += [f"The first ones left out: {first}."] if first else []
    return (*lines, *(f"Note, {note}: {count:,}." for note, count in found.notes.items()))


def way_cells(one: WayFigures) -> tuple[str, ...]:
    """Return the row of a way to answer, with a cell for each of WAY_HEADERS."""
    return (
        one.name if one.name != POLICY else "the policy",
        _shares(one.shares),
        "-" if one.cost_usd is None else amount_text(one.cost_usd),
        _interval(one.saved),
        _interval(one.saved_of_paid),
        f"{one.cached_share:.1%}",
        f"{one.n_switches:,}",
    )


def part_cells(name: str, part: LogPart) -> tuple[str, ...]:
    """Return the row of a part of the log, with a cell for each of PART_HEADERS."""
    return (
        name,
        f"{part.n:,}",
        _shares(part.shares),
        "-" if part.cost_usd is None else amount_text(part.cost_usd),
        "-" if part.saved is None else f"{part.saved:.1%}",
        f"{part.abstained_share:.1%}",
    )


def decision_line(one: DecisionToRead) -> str:
    """Return one decision on a line: where, who answers, why, and the risks."""
    risks = ", ".join(f"{name} {risk:.2f}" for name, risk in one.risks.items() if risk is not None)
    instead = f" in place of {one.would_choose}" if one.would_choose and one.would_choose != one.chosen else ""
    return f"{one.place}: {one.chosen}{instead}, {one.why}; risks {risks or '-'}"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, as in `gain below threshold 12, abstained 3`."""
    names = [name.replace("_", " ").lower() if name.isupper() else name for name in counts]
    return ", ".join(f"{name} {n:,}" for name, n in zip(names, counts.values(), strict=True))


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share) or "-"


def _saving(saved: Interval) -> str:
    word, low, high = "is saved", saved.low, saved.high
    if saved.value < -1:
        # Three digits before the percent sign say less than a factor.
        times = f"{1 - saved.value:.3g} times as much is spent"
        if not saved.is_known:
            return f"{times} ({_TOO_FEW})"
        return f"{times} (95 % interval over sessions {1 - saved.high:.3g} to {1 - saved.low:.3g} times)"
    if saved.value < 0:
        word, low, high = "more is spent", -saved.high, -saved.low
    if not saved.is_known:
        return f"{abs(saved.value):.1%} {word} ({_TOO_FEW})"
    return f"{abs(saved.value):.1%} {word} (95 % interval over sessions {low:.1%} to {high:.1%})"


def _interval(one: Interval | None) -> str:
    if one is None:
        return "-"
    return f"{one.value:.1%} [{one.low:.1%}, {one.high:.1%}]" if one.is_known else f"{one.value:.1%} [too few]"

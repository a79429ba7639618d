"""Write a preview as one HTML page that fetches nothing and holds its own charts."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from html import escape

from probes.probe import utc_now
from router.tuning.previewing.preview import Preview
from router.tuning.previewing.preview_text import (
    PART_HEADERS,
    WAY_HEADERS,
    counted,
    decision_line,
    left_out_lines,
    part_cells,
    preview_sentences,
    way_cells,
)
from router.tuning.reporting.charts import bars_chart
from router.tuning.reporting.html_page import TEMPLATE, picture


def preview_page(found: Preview) -> str:
    """Return the page of a preview. Every text of the policy and of the log is escaped."""
    title = escape(f"Preview of {found.policy}")
    return string.Template(TEMPLATE.read_text("utf-8")).substitute(title=title, body="\n".join(_body(found)))


def _body(found: Preview) -> Iterator[str]:
    yield f"<h1>What {escape(found.policy)} would have done</h1>"
    yield f'<p class="about">Policy <code>{found.policy_digest[:16]}</code>, made {utc_now()} by elle preview.</p>'
    yield f'<p class="sentence">{escape(" ".join(preview_sentences(found)))}</p>'
    yield "<h2>Ways to answer the same requests</h2>"
    costs = {one.name: one.cost_usd for one in found.ways if one.cost_usd is not None}
    if found.paid is not None and found.paid.n == found.n:
        costs["paid, says the log"] = found.paid.usd
    if costs:
        chart = bars_chart(costs, highlight=found.own.name, label="USD for the whole log, prompt caches counted")
        yield picture({"cost": chart}, "cost", "What each way would have cost. Intervals are in the table.")
    yield from _table(WAY_HEADERS, [way_cells(one) for one in found.ways], own=True)
    yield "<ul>" + "".join(f"<li>{escape(one.name)}: {escape(one.about)}.</li>" for one in found.ways) + "</ul>"
    yield f"<p>Reasons: {escape(counted(found.reasons))}.</p>"
    if found.refused:
        yield f'<p class="warning">Refused: {escape(counted(found.refused))}.</p>'
    for way, parts in found.parts.items():
        yield f"<h2>By {escape(way)}</h2>"
        yield from _table((way, *PART_HEADERS[1:]), [part_cells(name, part) for name, part in parts.items()])
    for sort, decisions in found.to_read.items():
        if decisions:
            yield f"<h2>Decisions to read: {escape(sort)}</h2><ul>"
            for one in decisions:
                text = "" if one.text is None else f"<br><span class='note'>{escape(one.text)}</span>"
                yield f"<li>{escape(decision_line(one))}{text}</li>"
            yield "</ul>"
    yield "<h2>What is assumed</h2><ul>"
    yield from (f"<li>{escape(line)}</li>" for line in (*found.assumed, *left_out_lines(found)))
    yield "</ul><p class='note'>Intervals are 95 % bootstrap over sessions.</p>"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, own: bool = False) -> Iterator[str]:
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{escape(header)}</th>" for header in headers) + "</tr>"
    for place, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        yield f"<tr>{cells}</tr>" if place or not own else f'<tr class="own">{cells}</tr>'
    yield "</table></div>"

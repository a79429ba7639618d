"""The HTML with which a report opens: a policy in one sentence, a row per profile, and what is estimated."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from router.tuning.judging.policy_evaluation import HEADERS, PolicyEvaluation, cells_of


def policy_block(found: PolicyEvaluation) -> Iterator[str]:
    """Yield the lines of the block. Names from the policy are escaped."""
    yield f"<h2>What the policy {escape(found.policy)} does</h2>"
    yield f'<p class="sentence">{escape(found.sentence)}</p>'
    if found.warning:
        yield f'<p class="warning">{escape(found.warning)}</p>'
    if found.estimates:
        yield "<p>What of this is estimated:</p><ul>"
        yield from (f"<li>{escape(line)}</li>" for line in found.estimates)
        yield "</ul>"
    else:
        yield "<p>Nothing of this is estimated: every score and every token count was observed.</p>"
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{escape(header)}</th>" for header in HEADERS) + "</tr>"
    for place, one in enumerate(found.rules):
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells_of(one))
        yield f"<tr>{row}</tr>" if place else f'<tr class="own">{row}</tr>'
    yield "</table></div>"
    yield f'<p class="note">On {found.n:,} prompts. {escape(" ".join(found.notes))}</p>'

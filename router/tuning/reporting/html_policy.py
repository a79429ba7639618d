"""Write the first part of the HTML report: a policy in one sentence, its estimates, and a row for each rule."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from router.tuning.judging.policy_evaluation import PolicyEvaluation
from router.tuning.reporting.policy_text import (
    HEADERS,
    cells_of,
    policy_estimates,
    policy_sentence,
    policy_warning,
)


def policy_html(found: PolicyEvaluation) -> Iterator[str]:
    """Yield the lines of HTML that describe a policy. Names from the policy are escaped."""
    yield f"<h2>What the policy {escape(repr(found.policy))} does</h2>"
    yield f'<p class="sentence">{escape(policy_sentence(found))}</p>'
    if warning := policy_warning(found):
        yield f'<p class="warning">{escape(warning)}</p>'
    if estimates := policy_estimates(found):
        yield "<p>What of this is estimated:</p><ul>"
        yield from (f"<li>{escape(line)}</li>" for line in estimates)
        yield "</ul>"
    else:
        yield "<p>Nothing of this is estimated: every score and every token count was observed.</p>"
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{escape(header)}</th>" for header in HEADERS) + "</tr>"
    for place, one in enumerate(found.rules):
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells_of(one))
        yield f"<tr>{row}</tr>" if place else f'<tr class="own">{row}</tr>'
    yield "</table></div>"
    yield f'<p class="note">On {found.n:,} prompts. {escape(" ".join(found.notes))}</p>'

"""Ask a person question by question, with one key for each answer (`ask_people`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.collecting.graders.judges.question import cut
from router.collecting.labelling.journal import Journal
from router.collecting.labelling.questions import KEYS, WORDS, HumanQuestion

#: Beyond this many characters a text is cut for the screen, in its middle.
_MOST_SHOWN = 12_000
_RULE = "-" * 78


def ask_people(
    questions: Sequence[HumanQuestion], journal: Journal, read_key: Callable[[], str], say: Callable[[str], None]
) -> None:
    """Ask about every question that nothing was said of, until all are answered or the person quits.

    Besides the keys of a question `s` skips it, `u` takes back the last answer and asks it again, and `q` quits. Other
    keys do nothing. Names of models are never shown.

    read_key: returns the next key that the person presses.
    say: shows a text.
    """
    by_id = {one.id: one for one in questions}
    again: HumanQuestion | None = None
    while True:
        said = journal.said
        one = again or next((one for one in questions if one.id not in said), None)
        if one is None:
            say(f"All {len(questions):,} questions have an answer.")
            return
        say(_shown(one, sum(question.id in said for question in questions) + 1, len(questions)))
        key = _known_key(one, read_key)
        if key == "q":
            return
        if key == "u":
            # What was said of a question that is no longer asked is taken back as well.
            again = by_id.get(journal.undo() or "")
            say("The last answer is taken back." if again else "There is nothing to take back.")
            continue
        again = None
        journal.record(one.id, None if key == "s" else one.score_of(key))
        say("Skipped." if key == "s" else KEYS[one.kind][key][0])


def _known_key(one: HumanQuestion, read_key: Callable[[], str]) -> str:
    while (key := read_key().lower()) not in {*KEYS[one.kind], "s", "u", "q"}:
        pass
    return key


def _shown(one: HumanQuestion, number: int, total: int) -> str:
    titles = ("ANSWER A", "ANSWER B") if len(one.answers) == 2 else ("ANSWER",)
    parts = [("REQUEST", one.request), *zip(titles, one.answers, strict=True)]
    texts = [f"{title}\n{visible(cut(text, _MOST_SHOWN))}\n{_RULE}" for title, text in parts]
    choices = ", ".join(f"[{key}] {word}" for key, (word, _) in KEYS[one.kind].items())
    head = f"\n{_RULE}\nQuestion {number:,} of {total:,}\n{_RULE}"
    return "\n".join([head, *texts, WORDS[one.kind], f"{choices}, [s] skip, [u] undo, [q] quit"])


def visible(text: str) -> str:
    """Return a text that does nothing to a terminal: control characters and other invisible ones are written out."""
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)

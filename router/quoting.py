"""Quote values that others sent, so that messages about them stay short and hold nothing harmful."""

from __future__ import annotations

from probes.bounded.files import beginning_and_rest
from probes.bounded.text import did_you_mean as did_you_mean
from probes.bounded.text import kind_of as kind_of

#: The largest number of characters of a value that a message repeats.
MAX_QUOTED_CHARACTERS = 80


def quoted(value: object) -> str:
    """Return a value that somebody else sent as a message quotes it: `'gpt-4'`, `0.5`, `an integer of 99 bits`.

    A text is masked and cut as `probes.bounded.files.shown` does: `***` stands for a key of an API, and the length
    follows the beginning of a long text. Messages become headers, trailers and lines of logs: they must stay short, and
    must hold no half surrogates and no line ends that a caller chose. A list or an object is named by its type, and a
    field that is missing or null is `nothing`.
    """
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, str):
        beginning, rest = beginning_and_rest(value, MAX_QUOTED_CHARACTERS)
        return f"{beginning!r}{rest}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else kind_of(value)

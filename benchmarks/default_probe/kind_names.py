"""Give kinds of request names that people understand."""

from __future__ import annotations

_WHOLE_FILES = {
    "gsm8k": "school mathematics in words",
    "arena_bench": "question from a real chat",
    "arena_hard": "demanding technical request from a real chat",
    "factscore_bio": "biography of a person",
    "h2o": "business chat",
    "humaneval_plus": "Python function to write",
    "math": "competition mathematics",
    "self_instruct_human": "everyday office request",
    "shaberi_gpt41": "Japanese chat",
    "shaberi_gpt4turbo": "Japanese chat",
    "theoremqa": "university mathematics and physics",
    "triviaqa_human": "short factual question",
    "bbh": "logic puzzle in words",
}

#: Words in the name of an exam's subject, and the area that it belongs to. The first that fits counts.
_AREAS = (
    ("mathematics exam", ("math", "algebra", "statistics")),
    ("physics and engineering exam", ("physics", "engineering", "astronomy")),
    ("chemistry exam", ("chemistry",)),
    ("computer science exam", ("computer", "machine_learning", "security")),
    (
        "medicine and biology exam",
        ("medic", "anatomy", "biology", "virology", "nutrition", "clinical", "aging", "health"),
    ),
    ("law exam", ("law", "jurisprudence")),
    ("business and economics exam", ("business", "econom", "accounting", "marketing", "management", "relations")),
    ("philosophy and ethics exam", ("philosophy", "moral", "logic", "religion", "fallacies")),
    ("history and geography exam", ("history", "geography", "prehistory")),
    ("psychology and society exam", ("psychology", "sociology", "politic", "foreign", "sexuality", "government")),
)

_PUZZLES = "puzzle: "


def kind_name(source: str, group: str) -> str:
    """Return the name of a kind in words from the name of its file and its group there.

    For example: `mmlu`, `college_physics` is "physics and engineering exam".
    """
    if source in _WHOLE_FILES:
        return _WHOLE_FILES[source]
    if source == "reasoning_gym":
        return _PUZZLES + group.replace("_", " ")
    lower = group.lower()
    if source == "gaokao":
        return "English exam of a Chinese school" if "english" in lower else "Chinese school exam"
    return next((area for area, words in _AREAS if any(word in lower for word in words)), "general knowledge exam")

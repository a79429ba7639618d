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

#: The tasks of BIG-Bench Hard, and the beginnings of their names where several tasks are one kind.
_BIG_BENCH = (
    ("date_understanding", "date to work out"),
    ("disambiguation_qa", "wording, irony or humour to judge"),
    ("geometric_shapes", "shape drawn by a path of points"),
    ("hyperbaton", "wording, irony or humour to judge"),
    ("logical_deduction", "order of things to deduce"),
    ("movie_recommendation", "similar film to name"),
    ("penguins_in_a_table", "fact to read off a table or a list"),
    ("reasoning_about_colored", "fact to read off a table or a list"),
    ("ruin_names", "wording, irony or humour to judge"),
    ("salient_translation", "fault to find in a translation"),
    ("snarks", "wording, irony or humour to judge"),
    ("temporal_sequences", "gap to find in a timetable"),
    ("tracking_shuffled", "things that people swap in turn"),
)

#: The tasks of reasoning-gym. A task that is not listed has its own name, after "puzzle: ".
_PUZZLES = {
    "ab": "puzzle: tokens to rewrite by rules",
    "acre": "puzzle: which objects switch a light on",
    "advanced_geometry": "geometry with coordinates",
    "aiw": "puzzle: brothers and sisters",
    "arc_1d": "puzzle: rule behind rows of numbers",
    "binary_alternation": "puzzle: swaps that make digits alternate",
    "chain_sum": "sum of several numbers",
    "circuit_logic": "puzzle: logic circuit",
    "codeio": "input or output of a program to work out",
    "color_cube_rotation": "puzzle: coloured cube that turns",
    "countdown": "puzzle: target number from given numbers",
    "course_schedule": "puzzle: courses with prerequisites",
    "cryptarithm": "puzzle: letters that stand for digits",
    "decimal_chain_sum": "sum of several numbers",
    "dice": "probability with dice",
    "family_relationships": "puzzle: family relationships",
    "figlet_font": "puzzle: word drawn with characters",
    "fraction_simplification": "fraction to simplify",
    "futoshiki": "puzzle: grid of numbers with inequalities",
    "game_of_life_halting": "puzzle: game of life",
    "graph_color": "puzzle: graph to colour",
    "group_anagrams": "puzzle: anagrams to group",
    "gsm_symbolic": "school mathematics in words",
    "jugs": "puzzle: water to measure with jugs",
    "knight_swap": "puzzle: chess knights to swap",
    "knights_knaves": "puzzle: who tells the truth",
    "largest_island": "puzzle: largest island of a grid",
    "leg_counting": "puzzle: legs of animals to count",
    "letter_jumble": "puzzle: jumbled letters of words",
    "list_functions": "puzzle: rule behind lists of numbers",
    "manipulate_matrix": "matrix to rearrange",
    "modulo_grid": "puzzle: pattern of a grid to complete",
    "number_filtering": "numbers to filter or sort",
    "number_sequence": "puzzle: next number of a sequence",
    "number_sorting": "numbers to filter or sort",
    "palindrome_partitioning": "puzzle: text to split into palindromes",
    "power_function": "power of a number",
    "products": "product of large numbers",
    "propositional_logic": "conclusion in formal logic",
    "rearc": "puzzle: rule behind grids of numbers",
    "rectangle_count": "puzzle: rectangles to count in a grid",
    "rotate_matrix": "matrix to rearrange",
    "rotten_oranges": "puzzle: what spreads through a grid",
    "rubiks_cube": "puzzle: Rubik's cube",
    "self_reference": "puzzle: statements about themselves",
    "sentence_reordering": "puzzle: words to put in order",
    "simple_equations": "simple equation",
    "simple_integration": "simple integral",
    "spell_backward": "word to spell backwards",
    "spiral_matrix": "matrix to rearrange",
    "string_manipulation": "puzzle: text to change by rules",
    "string_splitting": "puzzle: parts to exchange by rules",
    "sudoku": "puzzle: sudoku",
    "time_intervals": "time between two dates",
    "tsumego": "puzzle: move in the game of Go",
    "word_ladder": "puzzle: word ladder",
    "word_sequence_reversal": "puzzle: words to put in order",
}


def kind_name(source: str, group: str) -> str:
    """Return the name of a kind in words from the name of its file and its group there.

    For example: `mmlu`, `college_physics` is "physics and engineering exam".
    """
    if source in _WHOLE_FILES:
        return _WHOLE_FILES[source]
    if source == "reasoning_gym":
        return _PUZZLES.get(group, f"puzzle: {group.replace('_', ' ')}")
    if source == "bbh":
        task = group.rpartition("/")[2]
        return next((name for begin, name in _BIG_BENCH if task.startswith(begin)), "logic puzzle in words")
    lower = group.lower()
    if source == "gaokao":
        return "English exam of a Chinese school" if "english" in lower else "Chinese school exam"
    return next((area for area, words in _AREAS if any(word in lower for word in words)), "general knowledge exam")

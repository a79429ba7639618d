"""Tell the language of a text, and whether it holds code, by simple heuristics (`language_of`, `has_code`).

They need no dependency and no model. The script is looked at first, then how many of the most common words of each
language occur. If that is no clear evidence, the answer is `und` (ISO 639 for "undetermined") and not a guess.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from itertools import islice

UNKNOWN = "und"

#: How many characters at the beginning of a text are looked at, for its language and for code.
_LOOK_AT = 4000
_LOOK_AT_FOR_CODE = 20_000

#: How many lines are looked at for code, without the empty ones.
_LOOK_AT_LINES = 2000

#: The smallest number of different common words that are evidence for a language. It must also have more of them than
#: any other language.
_MIN_HITS = 2


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON_WORDS: Mapping[str, frozenset[str]] = {
    "en": _words(
        "the a of and to in is that it for was on are with as his they be at this have from or by what how why which "
        "does do you your can could please would should not an there when who my me i we if but all explain write"
    ),
    "de": _words(
        "der die das und ist nicht ein eine einen einem einer zu den dem des mit für auf von im sich auch wie was "
        "warum bitte ich du sie wir ihr kann wird sind es aber oder wenn noch mir mich mein meine bei nach"
    ),
    "fr": _words(
        "le la les des du un une et est pas que qui dans pour sur avec ce cette ces je tu il elle nous vous ne sont "
        "mais ou où comment pourquoi quelle quel au aux mon ma mes votre moi se peux plus"
    ),
    "es": _words(
        "el la los las un una y es no que en de del para por con se su lo como cómo qué cuál cuáles porque pero más "
        "este esta estos mi me yo tú está son al puedes cuando hay"
    ),
    "it": _words(
        "il lo la gli le un una e è non che di del della dei delle per con su come perché quale sono mi ti si ma più "
        "questo questa nel nella alla puoi cosa ho anche quando"
    ),
    "pt": _words(
        "o os a as um uma e é não que de do da dos das em no na nos nas para por com se como qual quais porque mas "
        "mais este esta isso eu você meu minha são ao está quando"
    ),
    "nl": _words(
        "de het een en is niet van in dat die op te voor met zijn aan er ook als maar om dan wat hoe waarom ik je jij "
        "wij kan kun mijn naar bij uit deze dit worden wordt"
    ),
    "sv": _words(
        "och är inte en ett det att som på av för med den till i har jag du vi kan vad hur varför om men från eller "
        "min mitt denna detta när ska skulle"
    ),
    "pl": _words(
        "i w nie na się z do to że jest jak co po ale czy dla od za o przez który która które jego dlaczego mi mnie "
        "ten ta te są może proszę"
    ),
    "da": _words("og er ikke en et det at som på af for med den til i har jeg du vi kan hvad hvordan hvorfor hvis mig"),
    "no": _words("og er ikke en et det at som på av for med den til i har jeg du vi kan hva hvordan hvorfor hvis meg"),
    "cs": _words("a je v na se že to s z do pro jak co ale nebo by si jsem jsou jako proč který prosím mi při"),
    "hr": _words("je i u na se da su za s od što kako ali ili sam nije koji zašto mi molim može"),
    "ro": _words("și este în la de cu pe nu un o care ce cum pentru din mai sunt că să îmi te rog"),
    "ca": _words("el la els les un una és i en no que de del per amb es com quin què perquè aquest més són em"),
    "id": _words("dan yang di ini itu untuk dengan tidak dari apa bagaimana saya adalah akan pada bisa ke tolong"),
    "vi": _words("và là của không có cho một các được trong tôi bạn như thế nào với này hãy"),
    "fi": _words("ja on ei se että en oli mutta kun niin mitä miten miksi voi tämä olla minä sinä minulle"),
    "hu": _words("és a az nem hogy egy van mi mit hogyan miért kérlek ez de vagy meg is nekem"),
    "tr": _words(
        "ve bir bu için de da ne ile mi mı mu mü nasıl neden çok daha olarak gibi ama ben sen var yok olan kadar "
        "lütfen bana hangi"
    ),
    "ru": _words(
        "и в не на что с как это по но из у за от о для так же то бы мне я ты вы мы он она они почему который можно "
        "пожалуйста"
    ),
    "uk": _words("і в не на що з як це по але у за від для так та мені я ти ви ми він вона вони чому який можна є"),
    "bg": _words("и в не на че с как това по но от за да се са е си ще аз ти вие ние той тя те защо който може ли"),
}

#: First code point, last code point and name of each script, in this order. Several have one language and are named
#: by it.
_SCRIPTS = (
    (0x0041, 0x024F, "latin"),
    (0x0370, 0x03FF, "el"),
    (0x0400, 0x052F, "cyrillic"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "arabic"),
    (0x0900, 0x097F, "devanagari"),
    (0x0E00, 0x0E7F, "th"),
    (0x3040, 0x30FF, "kana"),
    (0x3400, 0x9FFF, "han"),
    (0xAC00, 0xD7AF, "ko"),
)
_FIRST_POINTS = [first for first, _, _ in _SCRIPTS]
_CYRILLIC_LANGUAGES = ("ru", "uk", "bg")
_LANGUAGES = {
    "cyrillic": _CYRILLIC_LANGUAGES,
    "latin": tuple(language for language in _COMMON_WORDS if language not in _CYRILLIC_LANGUAGES),
}

#: Bits of a number that counts the words of one language. There are at most `_LOOK_AT` words.
_COUNT_BITS = 16

#: For each script and common word a number with a 1 in the place of each language that has the word. If such numbers
#: are added, they count the words of all languages at once, without a step of Python for each word.
_COUNTED_WORDS = {
    script: {
        word: sum(1 << _COUNT_BITS * n for n, language in enumerate(languages) if word in _COMMON_WORDS[language])
        for word in frozenset().union(*(_COMMON_WORDS[language] for language in languages))
    }
    for script, languages in _LANGUAGES.items()
}
_HINDI = _words("है हैं के का की में और क्या को से पर यह नहीं कैसे मुझे")
_URDU_LETTERS = frozenset("ٹڈڑںےہ")
_PERSIAN_LETTERS = frozenset("پچژگ")

_WORD = re.compile(r"\w+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII = "".join(map(chr, range(128)))
#: Makes ASCII text ready to be split into words: small letters, and blanks for all that is not part of a word.
_ASCII_WORDS = "".join(c.lower() if _WORD.match(c) else " " for c in _ASCII).encode().ljust(256)
#: The bytes of ASCII that are no letters.
_ASCII_NO_LETTERS = "".join(c for c in _ASCII if not c.isalpha()).encode()
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of the language of a text, or `und` if it is not clear.

    Only the first 4,000 characters are looked at, without code blocks.
    """
    prose = text[:_LOOK_AT]
    if _may_have_fence(prose):
        prose = " ".join(_FENCE.split(prose)[::2])
    if prose.isascii():
        # No other script has ASCII letters.
        return _language_with_most_words(prose, "latin")
    scripts = _scripts(prose)
    if not scripts:
        return UNKNOWN
    if scripts["kana"] and scripts["kana"] + scripts["han"] >= scripts["latin"] / 4:
        return "ja"
    # The script with most characters counts, because a text may hold single words in another script. One East Asian
    # character says about as much as three letters.
    script = max(scripts, key=lambda name: (scripts[name] * (3 if name in {"han", "ko"} else 1), name))
    if script in {"latin", "cyrillic"}:
        return _language_with_most_words(prose, script)
    if script == "devanagari":
        # `re` does not take the vowel signs of this script for word characters, so the text is split at blanks.
        return "hi" if not _HINDI.isdisjoint(prose.replace("।", " ").replace("?", " ").split()) else UNKNOWN
    if script == "arabic":
        letters = set(prose)
        return "ur" if letters & _URDU_LETTERS else "fa" if letters & _PERSIAN_LETTERS else "ar"
    return {"han": "zh", "kana": "ja"}.get(script, script)


def _scripts(text: str) -> Counter[str]:
    """Return how many letters of each script a text has."""
    n_ascii = len(text.encode("ascii", "ignore").translate(None, _ASCII_NO_LETTERS))
    found: Counter[str] = Counter({"latin": n_ascii} if n_ascii else {})
    for character, count in Counter(_NOT_ASCII.findall(text)).items():
        # Unicode does not count the vowel signs of Indic scripts and Thai among the letters.
        if character.isalpha() or "\u0900" <= character <= "\u0e7f":
            point = ord(character)
            _, last, name = _SCRIPTS[bisect_right(_FIRST_POINTS, point) - 1]
            if _FIRST_POINTS[0] <= point <= last:
                found[name] += count
    return found


def _language_with_most_words(text: str, script: str) -> str:
    languages = _LANGUAGES[script]
    counted = sum(filter(None, map(_COUNTED_WORDS[script].get, _words_of(text))))
    counts = struct.unpack(f"<{len(languages)}H", counted.to_bytes(len(languages) * _COUNT_BITS // 8, "little"))
    most = max(counts)
    return languages[counts.index(most)] if most >= _MIN_HITS and counts.count(most) == 1 else UNKNOWN


def _words_of(text: str) -> list[str]:
    # The pattern would find the same words in plain English, in three times the time.
    return text.encode().translate(_ASCII_WORDS).decode().split() if text.isascii() else _WORD.findall(text.lower())


def _may_have_fence(text: str) -> bool:
    return "```" in text or "~~~" in text


_CODE_START = re.compile(
    r"(?:def|class) \w++.{0,100}:|(?:from [\w.]{1,100} )?import [\w{*]|#include ?[<\"]|@\w+\(|\$ \w|>>> "
    r"|(?:public|private|protected|static|func|fn|function|const|let|var|struct|interface|impl|package) [\w<(]"
    r".{0,100}[{;(=]"
    r"|(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE) \w*"
    r"|(?:for|while|if|elif|else|try|except|with)\b.{0,150}:$"
)
_TRACES = ("Traceback (most recent call last)", "\n    at ", "panicked at ", "Exception in thread ")
_MIN_LINES = 2


def has_code(text: str) -> bool:
    """Return whether a text holds code: a fenced block, a stack trace, or at least two lines that read like code.

    Only the first 20,000 characters are looked at.
    """
    text = text[:_LOOK_AT_FOR_CODE]
    if (_may_have_fence(text) and _FENCE.search(text)) or any(trace in text for trace in _TRACES):
        return True
    lines = islice(filter(None, map(str.strip, text.splitlines())), _LOOK_AT_LINES)
    like_code = (True for line in lines if _reads_like_code(line[:200].rstrip()))
    return sum(islice(like_code, _MIN_LINES)) == _MIN_LINES


def _reads_like_code(line: str) -> bool:
    if line.endswith("{") or line in {"}", "};", "})", "});", "]", ");"}:
        return True
    # Lines of a list in prose end in a semicolon too. A statement also calls or assigns something.
    return (line.endswith(";") and ("(" in line or "=" in line)) or _CODE_START.match(line) is not None

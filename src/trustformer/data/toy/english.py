# SPDX-License-Identifier: Apache-2.0
"""English inflection by rule, with the exceptions that the toy corpus uses."""

from __future__ import annotations

from dataclasses import dataclass

_PLURALS = {
    "woman": "women",
    "man": "men",
    "tooth": "teeth",
    "knife": "knives",
    "midwife": "midwives",
    "policeman": "policemen",
    "thief": "thieves",
    "diagnosis": "diagnoses",
    "analysis": "analyses",
    "stomach": "stomachs",
}
_DOUBLED = ("acquit", "admit", "cancel", "commit", "plan", "put", "rob", "stop", "transfer", "forget", "get", "win")
_VOWEL_SOUND = ("heir", "honest", "hour")
_CONSONANT_SOUND = ("one", "used", "use", "uni")


def plural(noun: str) -> str:
    """Plural of a noun; of several words the last is inflected."""
    head, _, last = noun.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".lstrip()


def article(phrase: str) -> str:
    """The phrase with a or an before it, by the sound it begins with."""
    vowel = phrase[0].lower() in "aeiou" and not phrase.startswith(_CONSONANT_SOUND)
    return ("an " if vowel or phrase.startswith(_VOWEL_SOUND) else "a ") + phrase


def possessive(noun: str) -> str:
    """The genitive: patient's, patients', women's."""
    return noun + ("'" if noun.endswith("s") else "'s")


@dataclass(frozen=True, slots=True)
class EnglishVerb:
    """Forms of a verb; a particle (wait for) follows each of them."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


def verb(spec: str) -> EnglishVerb:
    """A verb from `base` or `base/past/participle`; `_` joins a particle to the base."""
    head, _, particle = spec.partition("_")
    base, *given = head.split("/")
    tail = " " + particle.replace("_", " ") if particle else ""
    stem = base + base[-1] if base in _DOUBLED else base
    drops_e = base.endswith("e") and not base.endswith("ee")
    if base.endswith("y") and base[-2] not in "aeiou":
        third, regular = base[:-1] + "ies", base[:-1] + "ied"
    else:
        third = base + ("es" if base.endswith(("s", "x", "ch", "sh", "o")) else "s")
        regular = base + "d" if base.endswith("e") else stem + "ed"
    past, participle = given or (regular, regular)
    ing = (base[:-1] if drops_e else stem) + "ing"
    return EnglishVerb(*(form + tail for form in (base, third, past, participle, ing)))


def predicate(verb: EnglishVerb, tense: str, third_singular: bool, first_singular: bool) -> tuple[str, str, str]:
    """Auxiliary, the main verb after it, and the main verb where nothing needs the auxiliary.

    Simple tenses have an auxiliary (do, does, did) only in negations and questions; the third value is then
    their plain form. In the other tenses it is empty.
    """
    be = "am" if first_singular else "is" if third_singular else "are"
    was = "was" if third_singular or first_singular else "were"
    if tense == "past":
        return "did", verb.base, verb.past
    if tense == "present":
        return ("does", verb.base, verb.third) if third_singular else ("do", verb.base, verb.base)
    compound = {
        "future": ("will", verb.base),
        "would": ("would", verb.base),
        "progressive": (be, verb.ing),
        "past progressive": (was, verb.ing),
        "future progressive": ("will", "be " + verb.ing),
        "perfect": ("has" if third_singular else "have", verb.participle),
        "past perfect": ("had", verb.participle),
        "passive": (was, verb.participle),
        "used": ("used", "to " + verb.base),
    }
    return (*compound[tense], "")

# SPDX-License-Identifier: Apache-2.0
"""Russian inflection by rule, for the words of the toy corpus.

A declined word is a tuple of six forms in the order of the numbers below. Accusatives are those of inanimate words;
`animate` puts the genitive in their place. Stress is not written, so where an ending depends on it the caller
says that the ending is stressed.
"""

from __future__ import annotations

from collections.abc import Mapping

NOM, GEN, DAT, ACC, INS, PREP = range(6)

Forms = tuple[str, str, str, str, str, str]

_VOWELS = "аеёиоуыэюя"
_NO_Y = "гкхжшчщ"  # never followed by ы
_HISSING = "жшчщ"
_HISSING_TS = "жшчщц"
_MUTATIONS = {"ст": "щ", "т": "ч", "д": "ж", "с": "ш", "з": "ж"}  # dental before the -у of the first person
_LABIALS = "бпвмф"


def join(stem: str, ending: str) -> str:
    """Stem and ending with the spelling rules: к г х ж ш ч щ + и, not ы; ж ш ч щ ц + а у, not я ю."""
    last = stem[-1]
    if ending[:1] == "ы" and last in _NO_Y:
        ending = "и" + ending[1:]
    elif ending[:1] in ("я", "ю") and last in _HISSING_TS:
        ending = ("а" if ending[0] == "я" else "у") + ending[1:]
    return stem + ending


def _decline(stem: str, endings: str) -> Forms:
    """Endings are six words; `-` is the empty ending."""
    nom, gen, dat, acc, ins, prep = (join(stem, "" if e == "-" else e) for e in endings.split())
    return nom, gen, dat, acc, ins, prep


def animate(forms: Forms) -> Forms:
    """The same word with the genitive in place of the accusative."""
    nom, gen, dat, _, ins, prep = forms
    return nom, gen, dat, gen, ins, prep


def noun(
    lemma: str, gender: str, *, stressed: bool = False, changes: Mapping[str, str] | None = None
) -> tuple[Forms, Forms]:
    """Singular and plural of a noun given in the nominative singular.

    Args:
        lemma: for example врач, больница, заявление, мазь.
        gender: m, f or n; a masculine in -а or -я (мужчина, судья) declines like a feminine.
        stressed: the ending carries the stress, as in врачом.
        changes: `stem` of the forms with an ending (отц for отец), `ps` the plural's stem, `np` the
            nominative plural (доктора), `gp` the genitive plural.
    """
    given = changes or {}
    last = lemma[-1]
    if last in "ая":
        singular, stem = _first_declension(lemma, stressed)
    elif last == "ь" and gender == "f":
        stem = lemma[:-1]
        singular = _decline(stem, "ь и и ь ью и")
    elif last in "ое":
        stem = lemma[:-1]
        prep = "и" if stem[-1] == "и" else "е"
        singular = _decline(stem, f"о а у о ом {prep}" if last == "о" else f"е я ю е ем {prep}")
    else:
        singular, stem = _masculine(lemma, given.get("stem", ""), stressed)
    stem = given.get("ps", stem)
    soft = last in "ьяй" or lemma.endswith("ие")
    ending = ("я" if soft else "а") if gender == "n" else ("и" if soft else "ы")
    nominative = given.get("np", join(stem, ending))
    genitive = given.get("gp", _genitive_plural(stem, lemma, gender, stressed))
    tail = [join(stem, e) for e in (("ям", "ями", "ях") if soft else ("ам", "ами", "ах"))]
    return singular, (nominative, genitive, tail[0], nominative, tail[1], tail[2])


def _first_declension(lemma: str, stressed: bool) -> tuple[Forms, str]:
    stem = lemma[:-1]
    if lemma[-1] == "а":
        ins = "ей" if stem[-1] in _HISSING_TS and not stressed else "ой"
        return _decline(stem, f"а ы е у {ins} е"), stem
    oblique = "и" if stem[-1] == "и" else "е"
    return _decline(stem, f"я и {oblique} ю {'ёй' if stressed else 'ей'} {oblique}"), stem


def _masculine(lemma: str, stem: str, stressed: bool) -> tuple[Forms, str]:
    if lemma[-1] in "ьй":
        stem = stem or lemma[:-1]
        prep = "и" if stem[-1] == "и" else "е"
        forms = _decline(stem, f"- я ю - {'ём' if stressed else 'ем'} {prep}")
    else:
        stem = stem or lemma
        ins = "ем" if stem[-1] in _HISSING_TS and not stressed else "ом"
        forms = _decline(stem, f"- а у - {ins} е")
    return (lemma, forms[GEN], forms[DAT], lemma, forms[INS], forms[PREP]), stem


def _genitive_plural(stem: str, lemma: str, gender: str, stressed: bool) -> str:
    last = lemma[-1]
    if last == "ь" or (last not in "аяоей" and stem[-1] in _HISSING):
        return stem + "ей"
    if last == "й":
        return stem + "ев"
    if gender == "m" and last not in "ая":
        return stem + ("ев" if stem[-1] == "ц" and not stressed else "ов")
    if last == "я" or lemma.endswith("ие"):
        return stem + ("й" if stem[-1] in _VOWELS else "ь")
    if stem[-1] == "к" and stem[-2] not in _VOWELS:  # a vowel comes between: карток, чашек, копеек
        before = stem[-2]
        if before in "ьй":
            return stem[:-2] + "ек"
        return stem[:-1] + ("ек" if before in _HISSING else "ок")
    return stem


def adjective(lemma: str) -> dict[str, Forms]:
    """Forms of an adjective in -ый, -ий or -ой by gender m, f, n and plural p."""
    stem, ending = lemma[:-2], lemma[-2:]
    if ending == "ий" and stem[-1] == "н":
        table = ("ий его ему ий им ем", "яя ей ей юю ей ей", "ее его ему ее им ем", "ие их им ие ими их")
    elif ending != "ой" and stem[-1] in _HISSING:
        table = ("ий его ему ий им ем", "ая ей ей ую ей ей", "ее его ему ее им ем", "ие их им ие ими их")
    else:
        table = (f"{ending} ого ому {ending} ым ом", "ая ой ой ую ой ой", "ое ого ому ое ым ом", "ые ых ым ые ыми ых")
    return {gender: _decline(stem, endings) for gender, endings in zip("mfnp", table, strict=True)}


def verb(spec: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Infinitive, six personal forms (present or perfective future) and the past by m, f, n, p.

    Args:
        spec: the infinitive, alone where the rules below suffice; otherwise
            `infinitive:1st singular:2nd singular` and, for irregular pasts, `:masculine:feminine`;
            `infinitive:дать` conjugates like дать. A reflexive adds -ся to every part by itself.
    """
    infinitive, *parts = spec.split(":")
    if infinitive.endswith("ся"):
        plain = ":".join([infinitive[:-2], *(part.removesuffix("ся").removesuffix("сь") for part in parts)])
        infinitive, personal, past = verb(plain)
        return (
            _reflexive(infinitive),
            tuple(_reflexive(form) for form in personal),
            {gender: _reflexive(form) for gender, form in past.items()},
        )
    if parts == ["дать"]:
        prefix = infinitive[: -len("дать")]
        personal = tuple(prefix + form for form in ("дам", "дашь", "даст", "дадим", "дадите", "дадут"))
    else:
        first, second = (parts[0], parts[1]) if parts else _first_and_second(infinitive)
        personal = _personal(first, second)
    masculine, feminine = (parts[2], parts[3]) if len(parts) == 4 else (infinitive[:-2] + "л", infinitive[:-2] + "ла")
    past = {"m": masculine, "f": feminine, "n": feminine[:-1] + "о", "p": feminine[:-1] + "и"}
    return infinitive, personal, past


def _reflexive(form: str) -> str:
    return form + ("сь" if form[-1] in _VOWELS else "ся")


def _first_and_second(infinitive: str) -> tuple[str, str]:
    if infinitive.endswith("давать"):
        return infinitive[:-4] + "ю", infinitive[:-4] + "ёшь"
    if infinitive.endswith("овать"):
        return infinitive[:-5] + "ую", infinitive[:-5] + "уешь"
    if not infinitive.endswith("ить"):
        return infinitive[:-2] + "ю", infinitive[:-2] + "ешь"
    stem = infinitive[:-3]
    if stem[-1] in _LABIALS:
        return stem + "лю", stem + "ишь"
    for before, after in _MUTATIONS.items():
        if stem.endswith(before):
            return stem[: -len(before)] + after + "у", stem + "ишь"
    return join(stem, "ю"), stem + "ишь"


def _personal(first: str, second: str) -> tuple[str, ...]:
    stem, vowel = second[:-3], second[-3]
    third_plural = join(stem, "ят") if vowel == "и" else first + "т"
    return (first, second, f"{stem}{vowel}т", f"{stem}{vowel}м", f"{stem}{vowel}те", third_plural)

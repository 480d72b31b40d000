# SPDX-License-Identifier: Apache-2.0
"""What a prepared corpus is like: counts, lengths, repeated pairs, languages; as data and as text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trustformer.data.corpus import Pair, corpus_digest
from trustformer.data.folder import UNLABELLED
from trustformer.data.lines import count
from trustformer.data.progress import tracked
from trustformer.data.split import MAX_CHARACTERS, Division
from trustformer.foreign import shown

_EDGES = (5, 10, 15, 20, 30, 40, 60, 100)
"""Upper ends of the length classes in words, the last one open."""
_BAR = 40
"""Characters of the longest bar."""
_MAX_RATIO = 4
"""Of the characters of the two sides; beyond, they rarely translate each other."""
_FEW = 100
"""Pairs of a test or validation set; scores of fewer say little."""
_SCRIPTS = {
    **dict.fromkeys(("ru", "uk", "be", "bg", "mk", "kk", "ky", "mn", "tg"), "CYRILLIC"),
    **dict.fromkeys(
        ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "cs", "sk", "sv", "da", "fi", "tr", "vi"), "LATIN"
    ),
    **dict.fromkeys(("el",), "GREEK"),
    **dict.fromkeys(("ar", "fa", "ur"), "ARABIC"),
    **dict.fromkeys(("he",), "HEBREW"),
    **dict.fromkeys(("zh",), "CJK"),
    **dict.fromkeys(("ko",), "HANGUL"),
}


def survey(division: Division, languages: tuple[str, str], warnings: Sequence[str]) -> dict[str, Any]:
    """Return the report of a divided corpus: numbers of pairs, classes in words, and warnings as sentences."""
    splits = division.splits
    pairs = [pair for part in splits.values() for pair in part]
    labelled = any(pair.domain for pair in pairs)
    return {
        "languages": list(languages),
        "pairs_read": division.read,
        "pairs": {name: len(part) for name, part in splits.items()},
        "domains": dict(sorted(Counter(pair.domain or UNLABELLED for pair in pairs).items())) if labelled else {},
        "dropped": {"too_long": division.too_long, "empty": division.empty},
        "duplicates": {
            "repeated": division.repeated,
            "repeated_across_inputs": division.shared,
            "same_source_other_translation": division.variants,
            "test_pairs_a_random_split_would_leak": round(division.leaked, 1),
        },
        "length_words": {
            "up_to": [*_EDGES, None],
            "source": _histogram([pair.source for pair in pairs]),
            "target": _histogram([pair.target for pair in pairs]),
        },
        "warnings": [*warnings, *_small(splits), *_oddities(pairs, languages, division)],
        "corpus_digest": corpus_digest(splits["train"], splits["valid"], splits["test"]),
    }


def summary(report: Mapping[str, Any]) -> str:
    """Return the report as text for people."""
    numbers, duplicates, lengths = report["pairs"], report["duplicates"], report["length_words"]
    source, target = report["languages"]
    total = sum(numbers.values())
    lines = [
        f"{report['pairs_read']:,} pairs read, {total:,} kept ({source}-{target}):",
        *(f"  {name:<6}{number:>10,}  {number / total:6.1%}" for name, number in numbers.items()),
    ]
    if report["domains"]:
        parts = [f"{shown(name, None)} {number:,}" for name, number in report["domains"].items()]
        lines.append(f"domains: {', '.join(parts)}")
    lines += [
        "duplicates:",
        f"  {duplicates['repeated']:,} equal to an earlier pair, {duplicates['repeated_across_inputs']:,} of them "
        "from another input",
        f"  {duplicates['same_source_other_translation']:,} with the source of an earlier pair and another translation",
        f"  {_leaked(duplicates['test_pairs_a_random_split_would_leak'])}",
    ]
    for side, language in (("source", source), ("target", target)):
        lines += [f"words a sentence, {language}:", *_bars(lengths["up_to"], lengths[side])]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines) + "\n"


def _leaked(pairs: float) -> str:
    if not pairs:
        return "a random split would put no source of a test pair into train either"
    number = "1 test pair" if pairs == 1 else f"{pairs:,} test pairs"
    return f"a random split would put the source of {number} into train as well; this split puts none"


def _bars(ends: Sequence[int | None], numbers: Sequence[int]) -> list[str]:
    starts = [1, *(end + 1 for end in ends if end is not None)]
    longest = max(numbers)
    rows = []
    for start, end, number in zip(starts, ends, numbers, strict=True):
        label = f"{start}-{end}" if end is not None else f"{start}+"
        bar = "#" * max(round(_BAR * number / longest), number > 0)
        rows.append(f"  {label:>7} {number:>10,}  {bar}".rstrip())
    return rows


def _histogram(sentences: Sequence[str]) -> list[int]:
    numbers = [0] * (len(_EDGES) + 1)
    for sentence in tracked(sentences, "counting", "sentences"):
        words = len(sentence.split())
        numbers[next((i for i, edge in enumerate(_EDGES) if words <= edge), len(_EDGES))] += 1
    return numbers


def _small(splits: Mapping[str, Sequence[Pair]]) -> list[str]:
    """Sentences about sets that are too small to score."""
    return [
        f"only {count(len(splits[name]), f'{name} pair')}: {score} of so few says little; all clients must agree on a "
        f"larger --{name}"
        for name, score in (("valid", "the loss"), ("test", "BLEU"))
        if len(splits[name]) < _FEW
    ]


def _oddities(pairs: Sequence[Pair], languages: tuple[str, str], division: Division) -> list[str]:
    """Sentences about pairs that look wrong; they are kept, but for those that were too long or empty."""
    found: list[str] = []

    def note(number: int, what: str) -> None:
        if number:
            found.append(f"{count(number, 'pair')} {what}")

    note(division.too_long, f"with a side of more than {MAX_CHARACTERS:,} characters dropped")
    note(division.empty, "with a side of nothing but marks such as U+FEFF dropped")
    note(sum(pair.source == pair.target for pair in pairs), "with both sides equal")
    sizes = [(len(pair.source), len(pair.target)) for pair in pairs]
    note(
        sum(max(size) > 40 and max(size) > _MAX_RATIO * min(size) for size in sizes),
        f"with one side more than {_MAX_RATIO} times as long as the other",
    )
    note(sum("\ufffd" in pair.source + pair.target for pair in pairs), "with a replacement character (a lost letter)")
    scripts = [_SCRIPTS.get(language.lower().partition("-")[0]) for language in languages]
    foreign = [0, 0]
    for pair in tracked(pairs, "checking"):
        for side, (text, script) in enumerate(zip((pair.source, pair.target), scripts, strict=True)):
            foreign[side] += script is not None and _lacks(text, script)
    for side, number in enumerate(foreign):
        note(number, f"whose {('source', 'target')[side]} has no {str(scripts[side]).capitalize()} letter")
    if scripts[0] != scripts[1] and min(foreign) > len(pairs) / 2:
        found.append("most pairs look swapped: source and target may have changed places")
    return found


def _lacks(text: str, script: str) -> bool:
    """Whether a text has letters, but none of the script."""
    letters = False
    for character in text:
        if character.isalpha():
            if unicodedata.name(character, "").startswith(script):
                return False
            letters = True
    return letters

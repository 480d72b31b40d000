# SPDX-License-Identifier: Apache-2.0
"""Clauses of the toy corpus: one event with its tense, time and place, said in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from trustformer.data.toy import english
from trustformer.data.toy.phrases import Phrase
from trustformer.data.toy.russian import NOM
from trustformer.data.toy.words import Aspect, Verb

_STATES = ("see", "think about")  # no English progressive
_BE = ("буду", "будешь", "будет", "будем", "будете", "будут")

Said = tuple[str, str]  # Russian, English
Predicate = tuple[str, str, str]  # auxiliary, main verb after it, main verb alone


@dataclass(frozen=True, slots=True)
class Mode:
    """Aspect and tense, with the time expressions that fix them.

    `around` are (Russian, English) adverbials; `middle` are adverbs that stand before the Russian verb and
    inside the English predicate. `negative` modes exist only negated.
    """

    weight: int
    perfective: bool
    russian: str
    english: str
    around: tuple[tuple[str, str], ...] = (("", ""),)
    middle: tuple[tuple[str, str], ...] = (("", ""),)
    negatable: bool = True
    negative: bool = False


_DAYS = (
    ("в понедельник", "on Monday"),
    ("во вторник", "on Tuesday"),
    ("в среду", "on Wednesday"),
    ("в четверг", "on Thursday"),
    ("в пятницу", "on Friday"),
    ("в субботу", "on Saturday"),
    ("в воскресенье", "on Sunday"),
    ("в январе", "in January"),
    ("в феврале", "in February"),
    ("в марте", "in March"),
    ("в апреле", "in April"),
    ("в мае", "in May"),
    ("в июне", "in June"),
    ("в июле", "in July"),
    ("в августе", "in August"),
    ("в сентябре", "in September"),
    ("в октябре", "in October"),
    ("в ноябре", "in November"),
    ("в декабре", "in December"),
    ("в два часа", "at two o'clock"),
    ("в пять часов", "at five o'clock"),
    ("в десять часов", "at ten o'clock"),
    ("сегодня вечером", "this evening"),
    ("сегодня", "today"),
)
_PAST = (
    ("вчера", "yesterday"),
    ("вчера утром", "yesterday morning"),
    ("позавчера", "the day before yesterday"),
    ("на прошлой неделе", "last week"),
    ("в прошлом году", "last year"),
    ("недавно", "recently"),
    ("два дня назад", "two days ago"),
    ("месяц назад", "a month ago"),
    ("несколько лет назад", "several years ago"),
    *_DAYS,
)
_FUTURE = (
    ("завтра", "tomorrow"),
    ("завтра утром", "tomorrow morning"),
    ("послезавтра", "the day after tomorrow"),
    ("скоро", "soon"),
    ("на следующей неделе", "next week"),
    ("в следующем году", "next year"),
    ("через час", "in an hour"),
    ("через три дня", "in three days"),
    *_DAYS,
)
_DURATION = (
    ("", ""),
    ("весь день", "all day"),
    ("всё утро", "all morning"),
    ("весь вечер", "all evening"),
    ("целый час", "for a whole hour"),
    ("целую неделю", "for a whole week"),
)
_HABIT = (
    ("каждый день", "every day"),
    ("каждую неделю", "every week"),
    ("каждое утро", "every morning"),
    ("по понедельникам", "on Mondays"),
    ("по вечерам", "in the evenings"),
    ("два раза в месяц", "twice a month"),
)
_OFTEN = (
    ("часто", "often"),
    ("редко", "rarely"),
    ("иногда", "sometimes"),
    ("обычно", "usually"),
    ("всегда", "always"),
)
_NONE = (("", ""),)

PAST = Mode(30, True, "past", "past", (*_NONE * 12, *_PAST))
FUTURE = Mode(14, True, "future", "future", (*_NONE * 6, *_FUTURE))
PROGRESSIVE = Mode(11, False, "present", "progressive", (("", ""), ("сейчас", "now"), ("сейчас", "now")))
MODES = (
    PAST,
    FUTURE,
    PROGRESSIVE,
    Mode(7, True, "past", "perfect", middle=(("уже", "already"), ("только что", "just")), negatable=False),
    Mode(4, True, "past", "perfect", (("ещё", "yet"),), negative=True),
    Mode(8, False, "past", "past progressive", _DURATION),
    Mode(4, False, "past", "past", _HABIT),
    Mode(3, False, "past", "past", middle=_OFTEN, negatable=False),
    Mode(3, False, "past", "used", middle=(("раньше", ""),), negatable=False),
    Mode(5, False, "present", "present", _HABIT),
    Mode(5, False, "present", "present", middle=_OFTEN, negatable=False),
    Mode(3, False, "present", "present", middle=(("никогда", "never"),), negatable=False),
    Mode(4, False, "future", "future progressive", _DURATION),
    Mode(3, False, "future", "future", _HABIT),
)


def predicate(aspect: Aspect, tense: str, subject: Phrase) -> Predicate:
    """The English predicate of a subject; states have no progressive."""
    if aspect.english.base in _STATES:
        tense = {"progressive": "present", "past progressive": "past", "future progressive": "future"}.get(tense, tense)
    return english.predicate(aspect.english, tense, subject.person == 2, subject.person == 0)


def russian_verb(aspect: Aspect, mode: Mode, subject: Phrase) -> str:
    """The Russian verb in agreement with the subject."""
    if mode.russian == "past":
        return aspect.past[subject.gender]
    if mode.russian == "future" and not mode.perfective:
        return f"{_BE[subject.person]} {aspect.infinitive}"
    return aspect.personal[subject.person]


def agree(table: str, subject: Phrase) -> str:
    """A form by gender (of four) or by person (of six)."""
    forms = table.split()
    return forms["mfnp".index(subject.gender)] if len(forms) == 4 else forms[subject.person]


@dataclass(frozen=True, slots=True)
class Clause:
    """An event ready to be said; empty strings are left out, `around` is time, `place` where."""

    subject: Phrase
    verb: Verb
    russian: str
    predicate: Predicate
    objects: tuple[str, str]
    place: tuple[str, str] = ("", "")
    around: tuple[str, str] = ("", "")
    middle: tuple[str, str] = ("", "")
    negated: bool = False

    def russian_predicate(self, *, around: bool = True) -> str:
        """Everything but the subject, time first."""
        verb = ("не " if self.negated or self.middle[0] == "никогда" else "") + self.russian
        time = self.around[0] if around else ""
        return words(time, self.middle[0], verb, self.objects[0], self.place[0])

    def russian_sentence(self, order: int) -> str:
        """The clause in one of four orders: time first, place and time first, time inside, time last."""
        name = self.subject.russian(NOM)
        if order == 2 or (self.negated and self.around[0] == "ещё"):
            return words(name, self.russian_predicate())
        if order == 1 and self.place[0]:
            verb = ("не " if self.negated or self.middle[0] == "никогда" else "") + self.russian
            return words(self.place[0], self.around[0], name, self.middle[0], verb, self.objects[0])
        if order == 3:
            return words(name, self.russian_predicate(around=False), self.around[0])
        return words(self.around[0], name, self.russian_predicate(around=False))

    def english_predicate(self) -> str:
        """Everything but the subject."""
        auxiliary, main, plain = self.predicate
        if self.negated:
            head = words("cannot" if auxiliary == "can" else f"{auxiliary} not", self.middle[1], main)
        elif plain:
            head = words(self.middle[1], plain)
        else:
            head = words(auxiliary, self.middle[1], main)
        return words(head, self.objects[1], self.place[1], self.around[1])

    def english_sentence(self) -> str:
        """Subject and predicate."""
        return words(self.subject.english, self.english_predicate())

    def english_question(self) -> str:
        """The clause with its auxiliary before the subject."""
        auxiliary, main, _ = self.predicate
        negation = "not" if self.negated else ""
        rest = words(self.objects[1], self.place[1], self.around[1])
        return words(auxiliary, self.subject.english, negation, self.middle[1], main, rest)


def words(*parts: str) -> str:
    """The parts that are not empty, with spaces between."""
    return " ".join(part for part in parts if part)

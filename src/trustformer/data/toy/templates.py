# SPDX-License-Identifier: Apache-2.0
"""Sentence templates of the toy corpus.

Each takes a Speaker and returns Russian and English without capitals and full stops; commas may be doubled,
`say` tidies them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from trustformer.data.toy import subordinate
from trustformer.data.toy.clauses import FUTURE, PAST, PROGRESSIVE, Clause, Predicate, Said, agree, predicate, words
from trustformer.data.toy.grammar import Speaker
from trustformer.data.toy.phrases import WHO, Phrase
from trustformer.data.toy.russian import ACC, DAT, GEN, INS, NOM

MIN_WORDS, MAX_WORDS = 4, 18

_MODALS = (  # past by gender or six persons, infinitive's aspect, English predicate
    ("должен должна должно должны", True, ("must", "", "")),
    ("могу можешь может можем можете могут", True, ("can", "", "")),
    ("хочу хочешь хочет хотим хотите хотят", True, ("do", "want to", "want to")),
    ("решил решила решило решили", True, ("did", "decide to", "decided to")),
    ("забыл забыла забыло забыли", True, ("did", "forget to", "forgot to")),
    ("начал начала начало начали", False, ("did", "begin to", "began to")),
    ("перестал перестала перестало перестали", False, ("did", "stop", "stopped")),
    ("обещал обещала обещало обещали", True, ("did", "promise to", "promised to")),
    ("попытался попыталась попыталось попытались", True, ("did", "try to", "tried to")),
)


def say(speaker: Speaker) -> Said:
    """A sentence of 4 to 18 words on each side with at least one word that only this domain has."""
    while True:
        speaker.keys = 0
        template = speaker.rng.choices(_TEMPLATES, cum_weights=_CUMULATIVE)[0]
        source, target = (_tidy(text) for text in template(speaker))
        lengths = (len(source.split()), len(target.split()))
        if speaker.keys and min(lengths) >= MIN_WORDS and max(lengths) <= MAX_WORDS:
            return source, target


def _tidy(text: str) -> str:
    text = text.replace(" ,", ",").replace(",,", ",")
    end = "" if text.endswith("?") else "."
    return text[0].upper() + text[1:].rstrip(",") + end


def _plain(s: Speaker) -> Said:
    return s.said(s.clause())


def _modal_predicate(given: tuple[str, str, str], aspect_english: tuple[str, str], subject: Phrase) -> Predicate:
    auxiliary, main, plain = given
    base, ing = aspect_english
    if not plain:
        return auxiliary, base, ""
    verb = ing if main == "stop" else base
    if auxiliary == "do" and subject.person == 2:
        return "does", f"{main} {verb}", f"{plain.replace('want', 'wants')} {verb}"
    return auxiliary, f"{main} {verb}", f"{plain} {verb}"


def _modal(s: Speaker) -> Said:
    table, perfective, given = s.rng.choice(_MODALS)
    clause = s.clause(mode=PAST, short=True)
    aspect = clause.verb.perfective if perfective else clause.verb.imperfective
    subject = clause.subject
    english = _modal_predicate(given, (aspect.english.base, aspect.english.ing), subject)
    said = Clause(
        subject,
        clause.verb,
        f"{agree(table, subject)} {aspect.infinitive}",
        english,
        clause.objects,
        negated=s.chance(0.2),
    )
    return s.said(said)


def _need(s: Speaker) -> Said:
    subject = s.subject()
    clause = s.clause(subject, PAST, short=True)
    aspect = clause.verb.perfective
    third = subject.person == 2
    russian, english = s.rng.choice(
        (("нужно", "needs to" if third else "need to"), ("пришлось", "had to"), ("удалось", "managed to"))
    )
    source = words(subject.russian(DAT), russian, aspect.infinitive, clause.objects[0])
    return source, words(subject.english, english, aspect.english.base, clause.objects[1])


def _passive(s: Speaker) -> Said:
    verb = s.verb(destination=False)
    while not verb.transitive or verb.recipient or verb.perfective.english.base in ("look at", "listen to"):
        verb = s.verb(destination=False)
    thing = s.phrase(verb.kinds, definite=True)
    agent = s.phrase("p", definite=False)
    time = s.rng.choice(PAST.around)
    order = (thing.russian(ACC), time[0]) if s.chance(0.5) else (time[0], thing.russian(ACC))
    source = words(*order, verb.perfective.past[agent.gender], agent.russian(NOM))
    auxiliary, participle, _ = predicate(verb.perfective, "passive", thing)
    return source, words(thing.english, auxiliary, participle, "by", agent.english, time[1])


def _has(s: Speaker) -> Said:
    owner = s.subject(pronouns=0.35)
    third = owner.person == 2
    negated, past = s.chance(0.35), s.chance(0.4)
    thing = s.phrase("dtmb", definite=False, plain=True)
    if negated:
        source = words(owner.russian(GEN, "у"), "не было" if past else "нет", thing.russian(GEN))
        verb = "did not have" if past else "does not have" if third else "do not have"
    else:
        was = {"m": "был", "f": "была", "n": "было", "p": "были"}[thing.gender]
        source = words(owner.russian(GEN, "у"), was if past else "есть", thing.russian(NOM))
        verb = "had" if past else "has" if third else "have"
    return source, words(owner.english, verb, thing.english)


def _there_is(s: Speaker) -> Said:
    place, where = s.place()
    negated, past = s.chance(0.3), s.chance(0.5)
    thing = s.phrase("pdt", definite=False, plain=True)
    while not thing.simple:
        thing = s.phrase("pdt", definite=False, plain=True)
    be = ("were" if past else "are") if thing.gender == "p" else ("was" if past else "is")
    if negated:
        bare = thing.english if thing.gender == "p" else thing.english.partition(" ")[2]
        return words(place, "не было" if past else "нет", thing.russian(GEN)), words("there", be, "no", bare, where)
    was = {"m": "был", "f": "была", "n": "было", "p": "были"}[thing.gender]
    source = words(place, was if past else "есть", thing.russian(NOM))
    return source, words("there", be, thing.english, where)


def _quality(s: Speaker) -> Said:
    noun = s.noun("pdtbevnm")
    while noun.proper:
        noun = s.noun("pdtbevnm")
    adjective = s.attributes(noun, 1.0)[0]
    thing = s.about(noun)
    form = adjective.inanimate[thing.gender]
    plural = thing.gender == "p"
    negation, no = ("не", "not") if s.chance(0.2) else ("", "")
    if s.chance(0.6):
        was = {"m": "был", "f": "была", "n": "было", "p": "были"}[thing.gender]
        source = words(thing.russian(NOM), negation, was, form[INS])
        return source, words(thing.english, "were" if plural else "was", no, adjective.english)
    source = words(thing.russian(NOM), negation or "очень", form[NOM])
    return source, words(thing.english, "are" if plural else "is", no or "very", adjective.english)


def _whether(s: Speaker) -> Said:
    clause = s.clause(mode=s.rng.choice((PAST, FUTURE)), short=True)
    time = s.rng.choice((*PAST.around[:13], ("сегодня", "today"), ("в пятницу", "on Friday")))
    source = words(clause.russian, "ли", clause.subject.russian(NOM), clause.objects[0], time[0])
    auxiliary, main, _ = clause.predicate
    return source + "?", words(auxiliary, clause.subject.english, main, clause.objects[1], time[1]) + "?"


def _question(s: Speaker) -> Said:
    word, meaning = s.rng.choice((("почему", "why"), ("когда", "when"), ("где", "where"), ("как", "how")))
    clause = s.clause(mode=s.rng.choice((PAST, FUTURE)), short=True)
    while word == "где" and clause.verb.destination:
        clause = s.clause(mode=PAST, short=True)
    return f"{word} {clause.russian_sentence(2)}?", f"{meaning} {clause.english_question()}?"


def _who(s: Speaker) -> Said:
    clause = s.clause(WHO, s.rng.choice((PAST, FUTURE, PROGRESSIVE)))
    return clause.russian_sentence(2) + "?", clause.english_sentence() + "?"


_WEIGHTED: tuple[tuple[Callable[[Speaker], Said], int], ...] = (
    (_plain, 36),
    (_modal, 9),
    (_need, 4),
    (_passive, 8),
    (subordinate.described_subject, 5),
    (subordinate.described_object, 6),
    (subordinate.reported, 7),
    (subordinate.cause, 4),
    (subordinate.condition, 4),
    (subordinate.sequence, 3),
    (subordinate.purpose, 3),
    (subordinate.two_events, 5),
    (_has, 5),
    (_there_is, 4),
    (_quality, 5),
    (_whether, 3),
    (_question, 3),
    (_who, 3),
)
_TEMPLATES = [template for template, _ in _WEIGHTED]
_CUMULATIVE = list(accumulate(weight for _, weight in _WEIGHTED))

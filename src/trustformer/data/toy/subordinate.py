# SPDX-License-Identifier: Apache-2.0
"""Sentence templates of the toy corpus with two clauses; as in `templates`, untidied."""

from __future__ import annotations

from trustformer.data.toy.clauses import FUTURE, PAST, PROGRESSIVE, Said, agree, predicate, russian_verb, words
from trustformer.data.toy.grammar import Speaker
from trustformer.data.toy.phrases import WHICH, Phrase
from trustformer.data.toy.russian import ACC, GEN, NOM

_MATRIX = (  # by gender or person, English third singular and other, past
    ("сказал сказала сказало сказали", "said", "said", True),
    ("объявил объявила объявило объявили", "announced", "announced", True),
    ("ответил ответила ответило ответили", "answered", "answered", True),
    ("знаю знаешь знает знаем знаете знают", "knows", "know", False),
    ("думаю думаешь думает думаем думаете думают", "thinks", "think", False),
    ("считаю считаешь считает считаем считаете считают", "believes", "believe", False),
    ("надеюсь надеешься надеется надеемся надеетесь надеются", "hopes", "hope", False),
    ("понимаю понимаешь понимает понимаем понимаете понимают", "understands", "understand", False),
)


def _who_relative(s: Speaker, head: Phrase) -> Phrase:
    """The phrase with a clause in which it acts."""
    clause = s.clause(head, s.rng.choice((PAST, PAST, PROGRESSIVE)), short=True)
    which = WHICH[head.gender][NOM]
    return head.with_tail(f", {which} {clause.russian_predicate()},", f"who {clause.english_predicate()}")


def described_subject(s: Speaker) -> Said:
    """A subject with a clause in which it acts."""
    head = s.phrase("p", definite=True)
    while not head.simple:
        head = s.phrase("p", definite=True)
    return s.said(s.clause(_who_relative(s, head), s.rng.choice((PAST, FUTURE)), short=True))


def described_object(s: Speaker) -> Said:
    """Subject, verb and an object that a second clause has as its object too."""
    first, second = s.verb(destination=False), s.verb(destination=False)
    kinds = "".join(sorted(set(first.kinds) & set(second.kinds)))
    while not kinds or second.recipient or first.recipient:
        first, second = s.verb(destination=False), s.verb(destination=False)
        kinds = "".join(sorted(set(first.kinds) & set(second.kinds)))
    head = s.phrase(kinds, definite=True, plain=True)
    while not head.simple:
        head = s.phrase(kinds, definite=True, plain=True)
    subject, other = s.subject(), s.subject()
    which = WHICH[head.gender]
    form = which[GEN] if head.animate and second.case == ACC and head.gender in "mp" else which[second.case]
    link = words(second.preposition, form)
    past = second.perfective.past[other.gender]
    order = (other.russian(NOM), past) if other.pronoun or s.chance(0.5) else (past, other.russian(NOM))
    relative = predicate(second.perfective, "past", other)[2]
    joint = "whom" if head.animate else "that"
    full = head.with_tail(f", {link} {words(*order)}", f"{joint} {other.english} {relative}")
    mode = s.rng.choice((PAST, FUTURE))
    english = predicate(first.perfective, mode.english, subject)
    source = words(
        subject.russian(NOM), russian_verb(first.perfective, mode, subject), full.russian(first.case, first.preposition)
    )
    return source, words(subject.english, english[2] or words(*english[:2]), full.english_object)


def reported(s: Speaker) -> Said:
    """Reported speech or thought."""
    table, third, other, past = s.rng.choice(_MATRIX)
    speaker = s.subject(pronouns=0.4)
    mode = s.rng.choice((FUTURE, FUTURE, PAST))
    tense = {"past": "past perfect", "future": "would"}[mode.english] if past else ""
    clause = s.clause(s.subject(pronouns=0.3), mode, short=True, tense=tense)
    source = words(speaker.russian(NOM), agree(table, speaker) + ", что", clause.russian_sentence(2))
    verb = third if speaker.person == 2 else other
    return source, words(speaker.english, verb, "that", clause.english_sentence())


def cause(s: Speaker) -> Said:
    """An event and its cause."""
    first, second = (s.clause(mode=s.rng.choice((PAST, PROGRESSIVE, FUTURE)), short=True) for _ in range(2))
    source = f"{first.russian_sentence(0)}, потому что {second.russian_sentence(2)}"
    return source, f"{first.english_sentence()} because {second.english_sentence()}"


def condition(s: Speaker) -> Said:
    """A condition and its result, both in the future."""
    condition = s.clause(mode=FUTURE, short=True, tense="present")
    result = s.clause(mode=FUTURE, short=True)
    source = f"если {condition.russian_sentence(2)}, {result.russian_sentence(2)}"
    return source, f"if {condition.english_sentence()}, {result.english_sentence()}"


def sequence(s: Speaker) -> Said:
    """Two events, one after the other."""
    first, second = s.clause(mode=PAST, short=True), s.clause(mode=PAST, short=True)
    source = f"когда {first.russian_sentence(2)}, {second.russian_sentence(2)}"
    return source, f"when {first.english_sentence()}, {second.english_sentence()}"


def purpose(s: Speaker) -> Said:
    """Somebody goes somewhere to do something."""
    going = s.clause(mode=s.rng.choice((PAST, FUTURE)), short=True)
    while not going.verb.destination:
        going = s.clause(mode=s.rng.choice((PAST, FUTURE)), short=True)
    aim = s.clause(going.subject, PAST, short=True)
    while aim.verb.destination:
        aim = s.clause(going.subject, PAST, short=True)
    aspect = aim.verb.perfective
    source = f"{going.russian_sentence(0)}, чтобы {aspect.infinitive} {aim.objects[0]}"
    return source, words(going.english_sentence(), "to", aspect.english.base, aim.objects[1])


def two_events(s: Speaker) -> Said:
    """Two things that one subject does."""
    mode = s.rng.choice((PAST, PAST, FUTURE))
    first = s.clause(mode=mode, short=True)
    second = s.clause(first.subject, mode, short=True)
    joint, meaning = (", но", ", but") if first.negated != second.negated else (" и", " and")
    source = f"{first.russian_sentence(2)}{joint} {second.russian_predicate()}"
    return source, f"{first.english_sentence()}{meaning} {second.english_predicate()}"

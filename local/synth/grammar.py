"""Phrase grammar: numbers, dates, times, prices, requests, sentences, spelling.

A rule is a tuple of alternatives; ``$name`` inside an alternative expands another
rule. Every alternative of a rule is equally likely, so weights are written by
repeating an alternative. Words that sound alike are told apart by their place
(``TWO`` / ``TO``); spellings with two readings (``READ``, ``CLOSE``) are left out.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Mapping

import numpy as np

Grammar = Mapping[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.upper().split())


_SENTENCE_RULES: dict[str, tuple[str, ...]] = {
    "S": (
        *("$REQUEST",) * 4,
        *("$EVENT", "$DATE", "$QUESTION") * 2,
        *("$PRICE", "$TIME", "$COUNT", "$TRAVEL"),
        *("$CLAUSE",) * 3,
    ),
    # requests
    "REQUEST": ("$ORDER", "PLEASE $ORDER", "$ORDER PLEASE", "$ASK $ORDER"),
    "ASK": ("CAN YOU", "COULD YOU", "I WANT TO", "DO NOT", "REMEMBER TO"),
    "ORDER": (
        *("TURN $ONOFF THE $DEVICE",) * 2,
        "TURN $ONOFF THE $DEVICE IN THE $ROOM",
        "OPEN THE $COLOUR $OPENABLE",
        "SHUT THE $ROOM $OPENABLE",
        "CALL $NAME $WHEN",
        "CALL $NAME AND $NAME",
        "SEND THE $PAPER TO $NAME",
        "SEND $NAME A $SIZE $PAPER",
        "BRING $NUMBER $FOODS",
        "BRING THE $COLOUR $THING TO THE $PLACE",
        "PUT THE $THING ON THE $FURNITURE",
        "PUT $NUMBER $FOODS ON THE $FURNITURE",
        "SET THE $SETTABLE TO $TWODIGIT",
        "WAKE $NAME AT $CLOCK",
        "BUY $NUMBER $FOODS",
    ),
    # dates, times, prices, counts
    "DATE": (
        "$WEEKDAY THE $ORDINAL OF $MONTH",
        "TODAY IS $WEEKDAY THE $ORDINAL",
        "THE $ORDINAL OF $MONTH IS A $WEEKDAY",
    ),
    "TIME": (
        "THE TIME IS $CLOCK",
        "IT IS $CLOCK IN $CITY",
        "THE $PLACE OPENS AT $CLOCK",
        "$NAME SLEEPS UNTIL $CLOCK",
    ),
    "PRICE": (
        "THE $COLOUR $THING COSTS $MONEY",
        "$NUMBER $FOODS COST $MONEY",
        "$NAME PAID $MONEY FOR THE $THING",
    ),
    "MONEY": (
        "$TWODIGIT DOLLARS",
        "$DIGIT HUNDRED DOLLARS",
        "$TWODIGIT EUROS",
    ),
    "COUNT": (
        "ROOM NUMBER $DIGIT $DIGIT $DIGIT",
        "DIAL $DIGIT $DIGIT $DIGIT $DIGIT $DIGIT",
        "THE NUMBER IS $BIGNUMBER",
        "$TWODIGIT PLUS $TWODIGIT",
        "$BIGNUMBER MINUS $TWODIGIT",
    ),
    # events, questions, travel
    "EVENT": (
        "THE $MEETING IS ON $WEEKDAY AT $CLOCK",
        "THE $MEETING STARTS AT $CLOCK",
        "MEET $NAME AT THE $PLACE $WHEN",
        "$NAME HAS A $MEETING ON $WEEKDAY",
        "THE $MEETING WITH $NAME IS $WHEN",
    ),
    "QUESTION": (
        "WHERE IS THE $COLOUR $THING",
        "WHAT IS THE WEATHER IN $CITY $WHEN",
        "WHEN DOES THE $PLACE IN $CITY OPEN",
        "WHEN DOES THE $PLACE OPEN ON $WEEKDAY",
        "HOW MANY $FOODS DOES $NAME WANT",
        "IS THE $PLACE NEAR THE $PLACE",
    ),
    "TRAVEL": (
        "THE $VEHICLE FROM $CITY LEAVES AT $CLOCK",
        "$NAME TAKES THE $VEHICLE TO $CITY",
        "TURN $SIDE AFTER THE $PLACE",
        "GO $SIDE AND THEN $SIDE AT THE $PLACE",
    ),
    # simple sentences
    "CLAUSE": (
        "$AGENT $EATS THE $FOOD",
        "$AGENT $EATS $FOOD IN THE $ROOM",
        "$AGENT $SEES THE $ADJ $ANIMAL",
        "$AGENT $SEES $NAME NEAR THE $PLACE",
        "$AGENT $MOVES BEHIND THE $PLACE",
        "$AGENT LOST THE $COLOUR $THING",
        "$AGENT $MOVES TO THE $PLACE $WHEN",
        "$NAME AND $NAME LIKE $FOOD",
        "THE $FURNITURE IN THE $ROOM IS $COLOUR",
        "THE $ANIMAL IS UNDER THE $FURNITURE",
        *("THE WEATHER IN $CITY IS $WEATHER", "IT WAS $WEATHER ON $WEEKDAY") * 2,
    ),
    "AGENT": ("$NAME", "THE $ADJ $PERSON", "THE $PERSON", "THE $ANIMAL"),
    # word lists
    "WHEN": (
        "TODAY",
        "TOMORROW",
        "TONIGHT",
        "ON $WEEKDAY",
        "ON $WEEKDAY $PARTOFDAY",
        "AT $CLOCK",
        "IN $MONTH",
        "NEXT WEEK",
    ),
    "CLOCK": (
        "$HOUR",
        "$HOUR $MINUTES",
        "$HOUR THIRTY",
        "HALF PAST $HOUR",
        "QUARTER TO $HOUR",
        "NOON",
        "MIDNIGHT",
    ),
    "HOUR": _words("one two three four five six seven eight nine ten eleven twelve"),
    "MINUTES": ("$TEENS", "$TENS", "FORTY FIVE"),
    "DIGIT": _words("one two three four five six seven eight nine"),
    "TEENS": _words(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
        " nineteen"
    ),
    "TENS": _words("twenty thirty forty fifty sixty seventy eighty ninety"),
    "TWODIGIT": ("$TENS", "$TEENS", "$TENS $DIGIT"),
    "NUMBER": ("$FEW", "$FEW", "$TEENS", "$TENS", "$TENS $DIGIT"),
    "FEW": _words("two three four five six seven eight nine"),
    "BIGNUMBER": ("$TWODIGIT", "$DIGIT HUNDRED", "$DIGIT HUNDRED $TWODIGIT"),
    "ORDINAL": (
        *_words("first second third fourth fifth sixth seventh eighth ninth tenth"),
        "TWENTIETH",
        "TWENTY FIRST",
        "TWENTY SECOND",
        "TWENTY THIRD",
    ),
    "WEEKDAY": _words("monday tuesday wednesday thursday friday saturday sunday"),
    "PARTOFDAY": _words("morning evening"),
    "MONTH": _words(
        "january february march april june july august september october november"
        " december"
    ),
    "NAME": _words("anna david maria peter susan robert thomas helen"),
    "CITY": _words("london paris boston chicago tokyo"),
    "PLACE": _words("station airport office school library river"),
    "ROOM": _words("kitchen garden bedroom"),
    "DEVICE": _words("light radio heater"),
    "SETTABLE": _words("heater oven"),
    "ONOFF": _words("on off"),
    "OPENABLE": _words("door window box"),
    "FURNITURE": _words("table chair shelf"),
    "THING": _words("bottle book phone jacket"),
    "PAPER": _words("letter message"),
    "COLOUR": _words("red blue green white"),
    "SIZE": _words("big small"),
    "ADJ": _words("old young happy"),
    "PERSON": _words("man woman doctor teacher"),
    "ANIMAL": _words("dog cat horse"),
    "FOOD": _words("bread cheese soup"),
    "FOODS": _words("apples oranges eggs"),
    "EATS": _words("eats likes wants"),
    "SEES": _words("sees follows found"),
    "MOVES": _words("walks runs"),
    "MEETING": _words("meeting party lesson"),
    "VEHICLE": _words("train bus"),
    "SIDE": _words("left right"),
    "WEATHER": _words("warm cold windy"),
}

_SPELL_RULES: dict[str, tuple[str, ...]] = {
    "S": (
        "SPELL $LETTERS",
        "SPELL $LETTERS PLEASE",
        "THE CODE IS $CODE",
        "THE NAME IS $LETTERS",
        "TYPE $CODE",
        "TICKET $CODE",
    ),
    "LETTERS": ("$L $L $L", "$L $L $L $L", "$L $L $L $L $L"),
    "CODE": ("$L $L $DIGIT", "$L $DIGIT $L $DIGIT", "$DIGIT $L $L $L"),
    "L": tuple(string.ascii_uppercase),
    "DIGIT": _SENTENCE_RULES["DIGIT"],
}

GRAMMARS: dict[str, Grammar] = {"main": _SENTENCE_RULES, "spell": _SPELL_RULES}

_SLOT = re.compile(r"\$([A-Z]+)")


def word_types(grammar: Grammar) -> set[str]:
    """Every word that the grammar can say."""
    alternatives = " ".join(text for texts in grammar.values() for text in texts)
    return set(_SLOT.sub(" ", alternatives).split())


def sample_sentence(grammar: Grammar, rng: np.random.Generator) -> str:
    """One sentence in upper case, from the start rule ``S``."""

    def expand(name: str) -> str:
        alternatives = grammar[name]
        chosen = alternatives[int(rng.integers(len(alternatives)))]
        return _SLOT.sub(lambda match: expand(match.group(1)), chosen)

    return expand("S")


def bucket(sentence: str) -> str:
    """The split that a sentence belongs to: one in ten test, one in ten valid.

    The sentence alone decides, so the splits are disjoint whatever their sizes and
    seeds, and no rare phrase is used up by the test set.
    """
    tenth = zlib.crc32(sentence.encode()) % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


def sample_sentences(
    grammar: Grammar,
    split: str,
    count: int,
    rng: np.random.Generator,
    *,
    unique: bool,
    min_words: int = 3,
    max_words: int = 9,
) -> list[str]:
    """Draws sentences of one split.

    Args:
        grammar: rules with a start rule ``S``.
        split: ``train``, ``valid`` or ``test``, see :func:`bucket`.
        count: how many.
        rng: source of randomness.
        unique: no sentence twice (test sets); otherwise short phrases come back, as
            in real speech, which keeps every word frequent.
        min_words: shortest sentence kept.
        max_words: longest sentence kept.

    Raises:
        ValueError: the grammar has too few sentences for the request.
    """
    sentences: list[str] = []
    seen: set[str] = set()
    attempts, limit = 0, 100 * count + 1000
    while len(sentences) < count:
        attempts += 1
        if attempts > limit:
            raise ValueError(
                f"{split}: the grammar gave only {len(sentences)} sentences of "
                f"{min_words}-{max_words} words in {limit} attempts, {count} were "
                "asked for: ask for fewer utterances or widen the grammar"
            )
        sentence = sample_sentence(grammar, rng)
        if not min_words <= len(sentence.split()) <= max_words:
            continue
        if bucket(sentence) != split or (unique and sentence in seen):
            continue
        seen.add(sentence)
        sentences.append(sentence)
    return sentences

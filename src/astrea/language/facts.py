"""Plain questions that any language model which has been taught to chat can answer, with what is right.

Asked without a picture before and after training, they show what a language model has forgotten. Even a small one, of
135 million parameters, answers them right before.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A question, a short answer to it as one would say it, and the word that an answer must hold to be right."""

    question: str
    answer: str
    word: str


FACTS = (
    Fact("What is the capital of France?", "The capital of France is Paris.", "Paris"),
    Fact("What is the capital of Japan?", "The capital of Japan is Tokyo.", "Tokyo"),
    Fact("How many months are there in a year?", "There are 12 months in a year.", "12"),
    Fact("How many hours are there in a day?", "There are 24 hours in a day.", "24"),
    Fact("In which direction does the sun rise?", "The sun rises in the east.", "east"),
    Fact("What is the opposite of day?", "The opposite of day is night.", "night"),
    Fact("What is the opposite of hot?", "The opposite of hot is cold.", "cold"),
    Fact("What is the plural of mouse?", "The plural of mouse is mice.", "mice"),
    Fact("What is the largest ocean on Earth?", "The largest ocean on Earth is the Pacific.", "Pacific"),
    Fact("Name the first month of the year.", "The first month of the year is January.", "January"),
)


def is_recalled(fact: Fact, said: str) -> bool:
    """Whether an answer holds the right word."""
    words = {word.strip(".,;:!?\"'()*").casefold() for word in said.split()}
    return fact.word.casefold() in words

"""Measure the index of `novelty` over many questions: python benchmarks/nearest.py [COUNT]

Questions of 20 forms about made-up names are added; then new ones, some of them misspelt copies,
look for their nearest. Each is checked against a comparison with all questions. No model.
"""

import random
import sys
import time

from selfloop_plugins._shared.nearest import NearestQuestions

from selfloop import Question
from selfloop.text.english.likeness import Sketch, likeness, sketch

FORMS = (
    "What is the capital of {}?",
    "Who was {}'s father?",
    "In which year was {} born?",
    "Where is {} located?",
    "Who wrote {}?",
    "Which river flows through {}?",
    "What is the population of {}?",
    "Who directed {}?",
    "What genre is {}?",
    "In what country is {}?",
    "Who founded {}?",
    "When did {} begin?",
    "Which team does {} play for?",
    "What is {} made of?",
    "How tall is {}?",
    "Which language is spoken in {}?",
    "Who was the first president of {}?",
    "What colour is {}?",
    "What award did {} win in 1998?",
    "Which university did {} attend?",
)
SYLLABLES = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "s")]
QUERIES = 500
CHECKED = 50  # queries that are compared with all questions


def made_questions(count: int, rng: random.Random) -> list[str]:
    """Return distinct questions about names of two words."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        name = " ".join("".join(rng.choices(SYLLABLES, k=3)).title() for _ in range(2))
        texts[rng.choice(FORMS).format(name)] = None
    return list(texts)


def misspelt(text: str, rng: random.Random) -> str:
    """Return a question without one of its letters."""
    place = rng.randrange(5, len(text) - 2)
    return text[:place] + text[place + 1 :]


def sketches(texts: list[str]) -> list[Sketch]:
    return [sketch(Question(text, "made")) for text in texts]


def main() -> None:
    """Print milliseconds a question for adding and for looking, and what the check found."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rng = random.Random(1)
    texts = made_questions(count + QUERIES, rng)
    asked, new = texts[:count], texts[count:]
    new[::2] = [misspelt(rng.choice(asked), rng) for _ in new[::2]]
    known, wanted = sketches(asked), sketches(new)
    index = NearestQuestions()
    start = time.process_time()
    index.add(known)
    added = time.process_time()
    nearest = [index.nearest(item) for item in wanted]
    ended = time.process_time()
    print(f"{count:,} questions: {1000 * (added - start) / count:.4f} ms to add one,")
    print(f"{1000 * (ended - added) / len(wanted):.3f} ms to find the nearest of one")
    missed = 0
    for item, (value, _) in list(zip(wanted, nearest, strict=True))[:CHECKED]:
        missed += max(likeness(item, other) for other in known) > value
    print(f"{missed} of {CHECKED} have a nearer one, by a comparison with all")


if __name__ == "__main__":
    main()

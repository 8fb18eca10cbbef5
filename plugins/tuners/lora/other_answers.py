"""Other answers of the base to the taught questions, for the mark behind an answer.

With them a question has several answers, each with its own chance of being correct. So the mark is
learnt from the answer: the question alone, or the style of its answers, does not tell it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from selfloop_plugins._shared.meaning import meaning

from selfloop import Sampling
from selfloop.protocols import Backend
from selfloop.records import Completion

from .tokenized import MakeRequest
from .training_examples import TrainingExample

SAMPLES = 6  # of each question
MAX_TOKENS = 24  # an answer that is longer is left out
# none is taken to be likelier right than wrong: that is the answer which the loop chose
MAX_CHANCE = 0.49


def other_answers(
    backend: Backend, examples: Sequence[TrainingExample], make_request: MakeRequest, seed: int
) -> list[TrainingExample]:
    """Return the answers of other meanings that the base gives at temperature 1, each once.

    An answer drawn half as often as that of the loop is half as likely correct as that one.
    """
    sampling = Sampling(1.0, max_tokens=MAX_TOKENS, stop=("\n",))
    requests = [
        replace(make_request(example.question), sampling=sampling, n=SAMPLES, seed=seed + number)
        for number, example in enumerate(examples)
    ]
    texts: list[dict[int, str]] = [{} for _ in examples]
    for number, completion in backend.generate(requests):
        if isinstance(completion, Completion) and completion.finish == "stop":
            texts[number][completion.sample] = completion.text.strip()
    others = list[TrainingExample]()
    for example, by_sample in zip(examples, texts, strict=True):
        others += _others_of(example, [by_sample[i] for i in sorted(by_sample)])
    return others


def _others_of(example: TrainingExample, samples: Sequence[str]) -> list[TrainingExample]:
    own = meaning(example.answer)
    times = Counter(map(meaning, samples))
    times_own = 1 + times[own]
    others = dict[str, TrainingExample]()
    for text in samples:
        sense = meaning(text)
        if sense and sense != own and sense not in others:
            chance = example.p_correct * times[sense] / times_own
            chance = min(chance, 1 - example.p_correct, MAX_CHANCE)
            others[sense] = TrainingExample(example.question, text, chance)
    return list(others.values())

"""Other answers of the base to the taught questions, for the mark behind an answer.

With them a question has several answers, each with its own chance of being correct. So the mark is
learnt from the answer: the question alone, or the style of its answers, does not tell it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from selfloop_plugins._shared.meaning import meaning

from selfloop import Request, Sampling
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
    requests = list[Request]()
    for example in examples:
        request = make_request(example.question)
        for _ in range(SAMPLES):
            sampling = Sampling(1.0, max_tokens=MAX_TOKENS, stop=("\n",))
            requests.append(replace(request, sampling=sampling, seed=seed + len(requests)))
    completions = dict(backend.generate(requests))
    others = list[TrainingExample]()
    for number, example in enumerate(examples):
        texts = list[str]()
        for i in range(number * SAMPLES, (number + 1) * SAMPLES):
            completion = completions.get(i)
            if isinstance(completion, Completion) and completion.finish == "stop":
                texts.append(completion.text.strip())
        others += _others_of(example, texts)
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

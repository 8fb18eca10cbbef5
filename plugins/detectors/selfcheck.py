"""SelfCheckGPT: what samples tell of an answer, sentence by sentence (Manakul et al.

2023, arXiv 2303.08896).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import ByReading, line, shares

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.config.prompts import is_open
from selfloop.records import Continuation
from selfloop.text.answers import normalise
from selfloop.text.units import plural

from ._claims import Abstain, OneByOne, meaning, stated
from ._similarity import sentences

CHOICES = (" Yes", " No")


class SelfCheckNgram(OneByOne):
    """Confidence is exp(−U), U the mean over the answer's sentences of the mean −log p of their
    words. Uncalibrated.

    p(w) = count(w) / count of all, over the words of the samples and of the answer itself; that the
    answer counts is the paper's smoothing: no word of it is unheard of. With `by: max`, each
    sentence has the −log p of its rarest word in place of the mean. Words are those of the
    normalised text, so articles and punctuation do not count. A sample that is empty or declines is
    one word that is not in the answer. Longer answers have lower values: compare answers of one
    kind. It abstains without samples, and where the answer is empty or declines.
    """

    name = "selfcheck_ngram"

    def __init__(self, *, by: Literal["mean", "max"] = "mean") -> None:
        self._by = by

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        said = [normalise(sentence).split() for sentence in _sentences(claim)]
        counts = Counter(word for sentence in said for word in sentence)
        for sample in claim.samples:
            counts.update(meaning(sample.text).split() or [""])
        whole = counts.total()
        costs = [[math.log(whole / counts[word]) for word in sentence] for sentence in said]
        each = [max(cost) if self._by == "max" else math.fsum(cost) / len(cost) for cost in costs]
        surprise = math.fsum(each) / len(each)
        return math.exp(-surprise), f"{surprise:.2f} nats a {'rarest ' * (self._by == 'max')}word"


class SelfCheckPrompt(ByReading):
    """Confidence is the mean over sentences and samples of P(" Yes") / (P(" Yes") + P(" No")).
    Uncalibrated.

    The model is asked for each sentence of the answer and each sample whether the sample supports
    the sentence, and the probabilities of the two words are read where the paper lets it write one.
    The prompt names the question, without which a short answer says nothing. A sample that is empty
    or declines supports nothing: it counts 0 unasked. A model of 135 or 270 million parameters
    hardly sees the difference: this is for larger ones. It abstains without samples, and where the
    answer is empty or declines.
    """

    name = "selfcheck_prompt"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return both choices for each sentence and each sample."""
        return [
            Continuation(prompt, choice, is_open(prompt))
            for sentence in _sentences(claim)
            for sample in claim.samples
            if meaning(sample.text)
            for prompt in [self._prompt(claim, line(sample.text), sentence, judging)]
            for choice in CHOICES
        ]

    def _prompt(self, claim: Claim, sample: str, sentence: str, judging: Judging) -> Any:
        question = line(claim.question.text)
        return judging.prompt(
            "selfcheck_prompt", question=question, context=sample, sentence=sentence
        )

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the mean support; what was not asked counts 0."""
        yes = [shares(pair)[0] for pair in zip(found[::2], found[1::2], strict=True)]
        count = len(_sentences(claim))
        support = math.fsum(yes) / (count * len(claim.samples))
        return (
            support,
            f"support {support:.2f} of {plural(count, 'sentence')} by {len(claim.samples)} samples",
        )


def _sentences(claim: Claim) -> list[str]:
    stated(claim)
    if not claim.samples:
        raise Abstain("no samples")
    return sentences(claim.answer.text)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer both forms."""
    paper = "https://arxiv.org/abs/2303.08896"
    words, asked = (
        "how common its words are among the samples",
        "does the model find it supported by each sample",
    )
    needs = frozenset({"loglikelihood"})
    return [
        Component("selfcheck_ngram", SelfCheckNgram, doc=words, paper=paper),
        Component(
            "selfcheck_prompt",
            SelfCheckPrompt,
            doc=asked,
            needs=needs,
            paper=paper,
            prompts=PROMPTS,
        ),
    ]

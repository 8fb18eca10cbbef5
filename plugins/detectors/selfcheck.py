"""SelfCheckGPT: do the samples support the answer, sentence by sentence?

Manakul et al. 2023, arXiv 2303.08896.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.records import Continuation
from selfloop.text.answers import normalise
from selfloop.text.units import plural

from ._claims import NO_SAMPLES, Abstain, PerClaimDetector, answer_meaning
from ._reading import ReadingDetector, choice_probabilities, choice_texts
from ._similarity import sentences

# with the space that a tokenizer puts before a word
CHOICES = (" Yes", " No")


class SelfCheckNgram(PerClaimDetector):
    """Confidence is exp(−U), U the mean over the answer's sentences of the mean −log p of words.

    p(w) = count(w) / count of all words of the samples and of the answer itself. That the answer
    counts is the paper's smoothing: each of its words has a count. With `by: max`, each sentence
    has the −log p of its rarest word in place of the mean. Words are those of the normalised text,
    so articles and punctuation do not count. A sample that is empty or declines is one word that is
    not in the answer.

    Its limit: longer answers have lower values, so compare answers of one kind. Uncalibrated. It
    abstains without samples, and where the answer is empty or declines.
    """

    name = "selfcheck_ngram"

    def __init__(self, *, by: Literal["mean", "max"] = "mean") -> None:
        self._by = by

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        answer = [normalise(sentence).split() for sentence in _answer_sentences(claim)]
        counts: Counter[str] = Counter()
        for words in answer:
            counts.update(words)
        for sample in claim.samples:
            # [""]: an empty sample is a word, too, so that it makes the others rarer
            counts.update(meaning(sample.text).split() or [""])
        total = counts.total()
        # −log p of the words of each sentence, in one number
        surprises = []
        for words in answer:
            of_words = [math.log(total / counts[word]) for word in words]
            surprises.append(
                max(of_words) if self._by == "max" else math.fsum(of_words) / len(of_words)
            )
        surprise = math.fsum(surprises) / len(surprises)
        unit = "rarest word" if self._by == "max" else "word"
        return math.exp(-surprise), f"{surprise:.2f} nats a {unit}"


class SelfCheckPrompt(ReadingDetector):
    """Confidence is the mean over sentences and samples of P(" Yes") / (P(" Yes") + P(" No")).

    The model is asked for each sentence of the answer and each sample: does the sample support the
    sentence? The probabilities of the two words are read, where the paper lets the model write one.
    The prompt names the question, without which a short answer says nothing. A sample that is empty
    or declines supports nothing: it counts 0, and is not asked about.

    Its limit: a model of 135 or 270 million parameters hardly sees the difference; this is for
    larger ones. Uncalibrated. It abstains without samples, and where the answer is empty or
    declines.
    """

    name = "selfcheck_prompt"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return both choices for each sentence and each sample."""
        prompts = []
        for sentence in _answer_sentences(claim):
            for sample in claim.samples:
                if not meaning(sample.text):
                    continue  # it supports nothing, and counts 0 in judge()
                prompt = context.prompt(
                    "selfcheck_prompt",
                    question=one_line(claim.question.text),
                    context=one_line(sample.text),
                    sentence=sentence,
                )
                prompts.append(prompt)
        return choice_texts(prompts, CHOICES)

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the mean support; an empty or declining sample counts 0."""
        # two results in a row for each prompt: that of " Yes", then that of " No"
        pairs = zip(results[::2], results[1::2], strict=True)
        supports = [choice_probabilities(pair)[0] for pair in pairs]
        count = len(_answer_sentences(claim))
        support = math.fsum(supports) / (count * len(claim.samples))
        sentences = plural(count, "sentence")
        reason = f"support {support:.2f} of {sentences} by {len(claim.samples)} samples"
        return support, reason


def _answer_sentences(claim: Claim) -> list[str]:
    """Return the answer's sentences; raise Abstain where it declines, or there are no samples."""
    answer_meaning(claim)
    if not claim.samples:
        raise Abstain(NO_SAMPLES)
    return sentences(claim.answer.text)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer both forms."""
    paper = "https://arxiv.org/abs/2303.08896"
    return [
        Component(
            "selfcheck_ngram",
            SelfCheckNgram,
            doc="how common its words are among the samples",
            paper=paper,
        ),
        Component(
            "selfcheck_prompt",
            SelfCheckPrompt,
            doc="does the model find it supported by each sample",
            needs=frozenset({"loglikelihood"}),
            paper=paper,
            prompts=PROMPTS,
        ),
    ]

"""Ask a backend for texts: all requests in one call, samples in order, refusals as values."""

import random
from collections.abc import Sequence
from operator import attrgetter

from selfloop import Claim, Completion, Request, VerifyContext
from selfloop.errors import RequestError
from selfloop.protocols import Backend


def generate_texts(requests: Sequence[Request], backend: Backend) -> list[list[str] | RequestError]:
    """Return the texts of each request in the order of its samples, or why it was refused.

    All requests are sent in one call. The results stand in the order of the requests.
    """
    completions: list[list[Completion]] = [[] for _ in requests]
    refusals: dict[int, RequestError] = {}
    # a backend yields completions as they finish, in any order
    for index, result in backend.generate(requests):
        if isinstance(result, RequestError):
            refusals[index] = result
        else:
            completions[index].append(result)
    results: list[list[str] | RequestError] = []
    for index, samples in enumerate(completions):
        ordered = sorted(samples, key=attrgetter("sample"))
        results.append(refusals.get(index, [sample.text for sample in ordered]))
    return results


def generate_one(requests: Sequence[Request], backend: Backend) -> list[str]:
    """Return the one text of each request.

    Raises RequestError where a request was refused; a run then tries the claims one by one.
    """
    texts: list[str] = []
    for result in generate_texts(requests, backend):
        if isinstance(result, RequestError):
            raise result
        texts += result
    return texts


def texts_or_none(result: list[str] | RequestError) -> list[str]:
    """Return the texts of a request; none where it was refused."""
    return [] if isinstance(result, RequestError) else result


def claim_seed(claim: Claim, context: VerifyContext) -> int:
    """Return a seed that depends on the run, the detector and the question, and on no other claim.

    So a question gets the same texts whatever else is in the batch, and in a resumed run.
    """
    return random.Random(f"{context.seed} {claim.question.id}").getrandbits(32)

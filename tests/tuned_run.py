"""A run of two rounds whose plugin opens a model, reads, asks and tunes; and its attempts."""

import json
from typing import Any

from conftest import Selfloop

PLUGIN = """\
import os
from selfloop import Component, Request, Sampling, Verdict, hookimpl
from selfloop.records import Adapter, Continuation
from selfloop.testing import ScriptedBackend

class Closed(ScriptedBackend):
    def __init__(self):
        super().__init__()
        if os.environ.get("NO_MODEL"):
            raise RuntimeError("the model is opened")

class Reads:
    def verify(self, claims, context):
        pairs = [Continuation("x", claim.question.text) for claim in claims]
        logprobs = context.backend.loglikelihood(pairs)
        return [Verdict("", 2.0 ** (sum(tokens) / 10)) for tokens in logprobs]

class Asks:
    def verify(self, claims, context):
        how, seed = Sampling(0.9, max_tokens=4), context.seed
        requests = [Request(f"More? {claim.question.text}", how, seed=seed) for claim in claims]
        said = {i: one.text for i, one in context.backend.generate(requests)}
        return [Verdict("", len(said[i]) / 100, said[i]) for i in range(len(claims))]

class Tunes:
    def tune(self, context):
        (context.folder / "adapter").write_text(str(context.round))
        return Adapter(str(context.folder / "adapter"), f"sha-{context.round}")

@hookimpl
def selfloop_backends():
    gives = frozenset({"logprobs", "loglikelihood", "adapters", "entropies"})
    return [Component("closed", Closed, gives=gives)]

@hookimpl
def selfloop_detectors():
    return [Component("reads", Reads), Component("asks", Asks)]

@hookimpl
def selfloop_tuners():
    return [Component("tunes", Tunes)]
"""
RECIPE = """\
name: first
rounds: 2
plugins: [plugin.py]
backend: closed
ask: {questions: 6, sources: [blank_slate], scorers: []}
answer: {samples: 4}
detectors: [agreement, reads, asks]
tuner: tunes
"""


def attempts(selfloop: Selfloop, name: str) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = json.loads(selfloop("show", name, "--json").out)["attempts"]
    return stored

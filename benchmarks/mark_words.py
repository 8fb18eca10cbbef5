"""With which word should the mark behind a reply begin?

    python benchmarks/mark_words.py RUN MODEL --stored FOLDER

The tuner makes the first token of the mark likelier at the end of replies that are likely wrong.
That must not reach into other places. So a good word is near to being said at the end of a reply,
and far from it within one. `end` is the median margin of each word there, its logit minus the
largest other, in nats; `within` the margin that 1 in 200 places within the replies pass. The
replies are those to the RUN's own questions; no gold answer is read.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from before_answering import examples_of
from detectors import recorded
from generate import cpu
from selfloop_plugins import models
from selfloop_plugins._decoding.prompting import split
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.model import allow_amx
from selfloop_plugins._torch.options import HfOptions
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.tuners.lora.conversation import before_mark, user_turn, write_turns
from selfloop_plugins.tuners.lora.forward import last_hidden_states, logits_of
from selfloop_plugins.tuners.lora.measures import decline_margins

from selfloop.records import Continuation

WORDS = (" (", " [", " —", " *", " ~", " …", " I", " But", " Though", " However", " Perhaps", "\n")
REPLIES = 90
RARE = 0.995


@torch.no_grad()
def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("--stored", type=Path, help="a folder that keeps what the model wrote")
    options = parser.parse_args()
    print(cpu(), flush=True)
    file = models.locate(options.model)
    taught, _ = examples_of(options.run)
    allow_amx()
    transformers = Transformers(HfOptions(model=str(file)))
    vocabulary, model = transformers.loaded.vocabulary, transformers.loaded.model
    backend = LlamaCpp(file)
    with recorded(backend, options.stored) as (recorder, _, _):
        turns = write_turns(recorder, taught[:REPLIES])
    backend.close()
    _, said = split(vocabulary, Continuation(user_turn("Is it?"), "It is."))
    tokens = {}
    for word in WORDS:
        _, more = split(vocabulary, Continuation(user_turn("Is it?"), f"It is.{word}Yes"))
        if more[: len(said)] == said:
            tokens[word] = more[len(said)]
    at_end: dict[str, list[float]] = {word: [] for word in tokens}
    within: dict[str, list[float]] = {word: [] for word in tokens}
    for turn in turns:
        found = before_mark(vocabulary, turn)
        if found is None:
            continue
        text, _ = found
        prompt, _ = split(vocabulary, Continuation(turn.messages, "It is."))
        logits = logits_of(
            model, last_hidden_states(model, [text], [range(len(prompt), len(text))])
        )
        for word, token in tokens.items():
            *inner, end = decline_margins(logits.float(), [token] * len(logits)).tolist()
            within[word] += inner
            at_end[word].append(end)
    print(f"{len(turns)} replies\n\n| word | end | within | end - within |\n|---|---|---|---|")
    gaps = list[tuple[float, str]]()
    cells = dict[str, str]()
    for word in tokens:
        usual, rare = float(np.median(at_end[word])), float(np.quantile(within[word], RARE))
        gaps.append((usual - rare, word))
        cells[word] = f"| {word!r} | {usual:.1f} | {rare:.1f} | {usual - rare:+.1f} |"
    for _, word in sorted(gaps, reverse=True):
        print(cells[word])


if __name__ == "__main__":
    main()

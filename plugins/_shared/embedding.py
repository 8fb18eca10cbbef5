"""Vectors of texts: near each other where the texts are alike.

They come from the model's own states, or from a sentence model.

Hidden states are those of the last layer at the end of a prompt that asks for the text in one word
(PromptEOL, Jiang et al. 2023, arXiv 2307.16645). Most of such a state is common to all texts. The
mean over fixed sentences takes that part off, so that a text's vector depends on no other text of
the call.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from selfloop.errors import MissingExtraError, RecipeError, RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation

from .prompt_text import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Embedder = Literal["hidden", "sentence_transformer"]
# Self-Prompting's (Li et al. 2022, arXiv 2212.08635)
SENTENCE_MODEL = "sentence-transformers/all-mpnet-base-v2"
NEUTRAL = (
    "The weather was fine on that day.",
    "She opened the door and went in.",
    "What time does the shop close?",
    "There are many ways to do this.",
    "He has worked here for ten years.",
    "Where can I buy a ticket?",
    "Water is heated in a large pot.",
    "The book lies on the table.",
    "Who is going to pay for it?",
    "They met again in the spring.",
    "It costs more than it did last year.",
    "How long does the journey take?",
    "A dog ran across the street.",
    "The old bridge was built of stone.",
    "Why is the sky dark at night?",
    "Music was playing in the next room.",
)


def embed(
    texts: Sequence[str], backend: Backend, by: Embedder = "hidden", model: str = SENTENCE_MODEL
) -> "NDArray[np.float32]":
    """Return a row of length 1 for each text, (texts, width).

    A text that cannot be embedded has a row of zeros. `hidden` needs the capability
    `hidden_states`; `sentence_transformer` loads `model`, a name of the Hugging Face hub or a
    folder. Raises MissingExtraError or RecipeError where the model cannot be loaded.
    """
    if by == "sentence_transformer":
        return _sentence_vectors(texts, model)
    return _state_vectors(texts, backend)


def check(by: Embedder, model: str) -> None:
    """Raise MissingExtraError or RecipeError if a sentence model is missing; load nothing."""
    if by != "sentence_transformer":
        return
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError(
            "sentence_transformers", "embeddings", "embedding by a sentence model"
        )
    if not model.strip():
        raise RecipeError(
            "no sentence model is named. Give a folder or a name of the hub, such as "
            f"{SENTENCE_MODEL}."
        )


def _sentence_vectors(texts: Sequence[str], model: str) -> "NDArray[np.float32]":
    import numpy as np

    if not texts:
        return np.zeros((0, 1), np.float32)
    lines = [one_line(text) for text in texts]
    vectors = _sentence_model(model).encode(lines, show_progress_bar=False)
    return _normalised(np.asarray(vectors, np.float32).reshape(len(texts), -1))


def _state_vectors(texts: Sequence[str], backend: Backend) -> "NDArray[np.float32]":
    import numpy as np

    neutral = [state for state in _states(NEUTRAL, backend) if state is not None]
    states = _states(texts, backend)
    usable = [*neutral, *(state for state in states if state is not None)]
    if not usable:
        return np.zeros((len(texts), 1), np.float32)
    mean = np.mean(neutral, axis=0) if neutral else np.zeros_like(usable[0])
    rows = [np.zeros_like(mean) if state is None else state - mean for state in states]
    return _normalised(np.reshape(rows, (len(texts), len(mean))))


def _states(texts: Sequence[str], backend: Backend) -> "list[Floats | None]":
    """Return the state after each text, (width,); None where it is refused or not finite."""
    import numpy as np

    if not texts:
        return []
    pairs = [
        Continuation("", f'This sentence: "{one_line(text)}" means in one word: "')
        for text in texts
    ]
    states: list[Floats | None] = []
    for result in backend.hidden_states(pairs, (-1,)):
        if isinstance(result, RequestError):
            states.append(None)
            continue
        state = np.asarray(result[0], np.float64)
        states.append(state if np.isfinite(state).all() else None)
    return states


def _normalised(rows: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Return rows of length 1; a row without length, or with a number that is not finite, is 0."""
    import numpy as np

    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


@lru_cache(maxsize=1)
def _sentence_model(model: str) -> Any:
    check("sentence_transformer", model)
    try:
        load = import_module("sentence_transformers").SentenceTransformer
        return load(model, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:  # the library's own, and those of its dependencies
        raise RecipeError(
            f"cannot load the sentence model {model}: {str(error).rstrip('.')}. Give the folder "
            "of one with its weights in safetensors, or a name of the Hugging Face hub."
        ) from error

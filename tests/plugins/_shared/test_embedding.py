"""Vectors of texts: what they depend on, what they do not, and what cannot be embedded."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from selfloop_plugins._shared import embedding
from selfloop_plugins._shared.embedding import NEUTRAL, embed

from selfloop.errors import MissingExtraError, RecipeError, RequestError
from selfloop.records import Continuation
from selfloop.testing import ScriptedBackend

TEXTS = ["What is the capital of Peru?", "Who wrote Emma?", "", "?", "a\nb", '"quoted" {text}']


class Odd(ScriptedBackend):
    """Refuses what has "refuse" in it, and gives no numbers for what has "nan"."""

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1)
    ) -> list[Any]:
        found = super().hidden_states(pairs, places)
        for i, pair in enumerate(pairs):
            if "refuse" in str(pair.text):
                found[i] = RequestError("too long")
            if "nan" in str(pair.text):
                found[i] = np.full_like(found[i], np.nan)
        return found


def test_rows_have_length_one_and_depend_on_no_other_text() -> None:
    rows = embed(TEXTS, ScriptedBackend())
    assert (rows.dtype, rows.shape) == (np.float32, (len(TEXTS), 8))
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    alone = np.concatenate([embed([text], ScriptedBackend()) for text in TEXTS])
    assert (alone == rows).all()
    assert len(np.unique(rows, axis=0)) == len(TEXTS)
    assert embed([], ScriptedBackend()).shape == (0, 8)


def test_what_neutral_sentences_have_in_common_is_taken_off() -> None:
    assert np.abs(embed(NEUTRAL, ScriptedBackend()).mean(axis=0)).max() < 0.15, (
        "raw states are all above 0"
    )


def test_a_line_break_is_no_difference() -> None:
    one, other = embed(["a\nb", "a b"], ScriptedBackend())
    assert (one == other).all()


def test_what_cannot_be_embedded_is_a_row_of_zeros() -> None:
    rows = embed(["fine", "refuse this", "nan", "fine too"], Odd())
    assert rows.any(axis=1).tolist() == [True, False, False, True]
    assert (rows[0] == embed(["fine"], Odd())[0]).all()


def test_a_backend_that_refuses_everything_gives_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Odd()
    monkeypatch.setattr(
        refusing, "hidden_states", lambda pairs, places: [RequestError("no")] * len(pairs)
    )
    assert embed(["a", "b"], refusing).tolist() == [[0.0], [0.0]]


def test_without_neutral_sentences_states_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "NEUTRAL", ("refuse",))
    assert (embed(["a"], Odd()) > 0).all()


def installed(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(embedding, "find_spec", lambda name: object())
    embedding._sentence_model.cache_clear()


def test_a_sentence_model_is_loaded_once_and_runs_no_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []

    class Model:
        def __init__(self, name: str, **how: Any) -> None:
            loaded.append((name, how))

        def encode(self, texts: list[str], **how: Any) -> Any:
            return np.array([[3.0 * len(text), 4.0 * len(text)] for text in texts])

    installed(monkeypatch, Model)
    assert embed(["a", "bc", ""], ScriptedBackend(), "sentence_transformer", "m") == pytest.approx(
        np.array([[0.6, 0.8], [0.6, 0.8], [0, 0]])
    )
    assert embed([], ScriptedBackend(), "sentence_transformer", "m").shape[0] == 0
    ((name, how),) = loaded
    assert (name, how["trust_remote_code"], how["model_kwargs"]["use_safetensors"]) == (
        "m",
        False,
        True,
    )
    embedding._sentence_model.cache_clear()


def test_a_sentence_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **how: Any) -> None:
        raise OSError("no such repository.")

    installed(monkeypatch, load)
    with pytest.raises(
        RecipeError, match=r"cannot load the sentence model no/such: no such repository\. Give"
    ):
        embed(["a"], ScriptedBackend(), "sentence_transformer", "no/such")


def test_without_the_package_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    embedding._sentence_model.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'selfloop\[embeddings\]'"):
        embedding.check("sentence_transformer", "m")
    with pytest.raises(MissingExtraError, match="sentence_transformers"):
        embed(["a"], ScriptedBackend(), "sentence_transformer", "m")
    embedding.check("hidden", "")

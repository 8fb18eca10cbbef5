"""Does one text follow from another: asked of a model for natural language inference, in a folder of the user's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfloop.errors import MissingExtra, RecipeError

BATCH = 32


class Entailment:
    """A sequence classifier of transformers (extra `hf`), one of whose labels is "entailment".

    Safetensors only.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingExtra("transformers", "hf", "meaning by entailment (same: nli)") from error
        how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **how)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, **how
            )
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError(
                f"nli: {folder} holds no classifier that transformers can load ({error}). Give "
                "the folder of a model "
                "for natural language inference, with its tokenizer and its weights in safetensors."
            ) from error
        self._model.eval()
        labels: dict[str, int] = {
            name.lower(): number for name, number in self._model.config.label2id.items()
        }
        if "entailment" not in labels:
            known = ", ".join(sorted(labels))
            raise RecipeError(
                f"nli: {folder} has no label named entailment, only {known}. It is no model for "
                "inference; give one."
            )
        self._entails = labels["entailment"]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each (premise, hypothesis) whether entailment is the likeliest label; long texts are cut."""
        import torch

        found: list[bool] = []
        for start in range(0, len(pairs), BATCH):
            given = [list(side) for side in zip(*pairs[start : start + BATCH], strict=True)]
            read = self._tokenizer(*given, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                found += (self._model(**read).logits.argmax(-1) == self._entails).tolist()
        return found

"""Does one text follow from another? A local model for natural language inference judges it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfloop.errors import MissingExtraError, RecipeError

BATCH_SIZE = 32  # pairs in one pass of the classifier


class Entailment:
    """A sequence classifier of transformers (extra `hf`), one of whose labels is "entailment".

    It is loaded from a local folder, from safetensors only, and runs no code of the folder. Raises
    MissingExtraError without transformers, RecipeError for a folder without such a classifier.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError(
                "transformers", "hf", "meaning by entailment (same: nli)"
            ) from error
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, **options
            )
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError(
                f"nli: {folder} holds no classifier that transformers can load ({error}). Give the "
                "folder of a model for natural language inference, with its tokenizer and its "
                "weights in safetensors."
            ) from error
        self._model.eval()  # without dropout, so that a pair always gets the same label
        label_ids: dict[str, int] = {
            name.lower(): number for name, number in self._model.config.label2id.items()
        }
        if "entailment" not in label_ids:
            labels = ", ".join(sorted(label_ids))
            raise RecipeError(
                f"nli: {folder} has no label named entailment, only {labels}. It is no model for "
                "inference; give one."
            )
        self._entailment_id = label_ids["entailment"]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each (premise, hypothesis) whether entailment is the likeliest label.

        Texts over the classifier's length are cut.
        """
        import torch

        entailed: list[bool] = []
        for start in range(0, len(pairs), BATCH_SIZE):
            batch = pairs[start : start + BATCH_SIZE]
            premises = [premise for premise, _ in batch]
            hypotheses = [hypothesis for _, hypothesis in batch]
            encoded = self._tokenizer(
                premises, hypotheses, padding=True, truncation=True, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self._model(**encoded).logits  # (pairs, labels)
            entailed += (logits.argmax(-1) == self._entailment_id).tolist()
        return entailed

"""The card of an exported model: what it is, how it was made, what its gate measured, how to load it, what to mind."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfloop_plugins._shared.cards import block, code, front, made_with, table
from selfloop_plugins._shared.gate_report import GateReport as Gated
from selfloop_plugins._shared.gate_report import read_gate_report as gated
from selfloop_plugins._torch.adapter import GGUF, WEIGHTS

from selfloop.records import Adapter
from selfloop.text.answers import UNKNOWN

KINDS = {
    "adapter": "A LoRA adapter",
    "hf": "The weights of a model of transformers, with a LoRA adapter in them,",
    "ollama": "A GGUF file for ollama, with a LoRA adapter in its weights,",
}
LIBRARIES = {"adapter": "peft", "hf": "transformers"}
WORDS = {
    "kept": "right answers still given",
    "declined": "wrong answers declined",
    "refused": "right answers declined",
    "perplexity": "perplexity of the base's own text",
    "gold right": "gold questions answered rightly",
    "gold wrong": "gold questions answered wrongly",
}
LIMITS = f"""\
Nobody checked what it was taught: the model's own answers where detectors that do not take its word held them likely,
and "{UNKNOWN}" where they did not. Expect it to decline more of what it does not know than its base, but not all of it,
and some of what it does know. It knows nothing that its base did not. It was taught on short questions, bare or as the
recipe asks them; what it does with other text was not measured, and neither were safety and bias.

The base model's terms hold for what is made of it. The licence of this work is for whoever publishes it to state."""


def card(name: str, to: str, model: Mapping[str, Any], adapter: Adapter, recipe: str) -> str:
    """Return the card of what `to` names of the run `name`.

    Raises ModelError for a gate's file that is damaged.
    """
    folder = Path(adapter.path).parent
    parts = [
        front(_about(to, model)) + f"\n# {code(f'{name}-{to}')}",
        f'{KINDS[to]} made by selfloop, which teaches a model to say "{UNKNOWN}" where it does '
        "not know. "
        f"Base: {made_with(model)}.",
        "## How it was made",
        f"In round {adapter.round} of the run {code(name)}, by this recipe. The adapter's sha256 "
        "is "
        f"{code(adapter.sha256)}, its scale {adapter.scale:g}.",
        block(recipe, "yaml"),
        "## What the gate measured",
        _figures(gated(folder)),
        "## How to load it",
        *_loading(to, model, folder),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _about(to: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the hub reads; `base_model` only where the base is on the hub, for a path means nothing there."""
    base = str(model.get("file", ""))
    hub = (
        re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base)
        and not base.endswith(".gguf")
        and not Path(base).exists()
    )
    there = {"base_model": base} if hub else {}
    library = {"library_name": LIBRARIES[to]} if to in LIBRARIES else {}
    return there | library | {"pipeline_tag": "text-generation", "tags": ["selfloop", "lora"]}


def _figures(said: Gated | None) -> str:
    if said is None:
        return "Nothing: no gate left its figures beside this adapter."
    names = [name for name in WORDS if name in said.base and name in said.tuned]
    rows = [(WORDS[name], f"{said.base[name]:.3f}", f"{said.tuned[name]:.3f}") for name in names]
    held = "On questions that were never trained on; right and wrong as the detectors expect them, not as anybody checked."
    return f"{table(('', 'base', 'tuned'), rows)}\n\n{held}"


def _loading(to: str, model: Mapping[str, Any], folder: Path) -> list[str]:
    file = Path(str(model.get("file", "")))
    if to == "ollama":
        return [block("ollama create NAME -f Modelfile\nollama run NAME", "sh")]
    if to == "hf":
        return [
            block(
                _lines('model = AutoModelForCausalLM.from_pretrained("THIS FOLDER", dtype="auto")'),
                "python",
            )
        ]
    ways = []
    if (folder / WEIGHTS).is_file():
        place = repr(str(file))
        if file.suffix == ".gguf":
            place = f'"FOLDER OF THE BASE", gguf_file={file.name!r}'
        base = f"base = AutoModelForCausalLM.from_pretrained({place})"
        tuned = 'model = PeftModel.from_pretrained(base, "THIS FOLDER")'
        ways.append(block("from peft import PeftModel\n" + _lines(base, tuned), "python"))
    if (folder / GGUF).is_file():
        asking = shlex.quote("Question: Who wrote Emma?\\nAnswer:")
        ways.append(
            block(f"llama-cli -m {shlex.quote(file.name)} --lora {GGUF} --temp 0 -p {asking}", "sh")
        )
    return ways


def _lines(*lines: str) -> str:
    return "\n".join(("from transformers import AutoModelForCausalLM", "", *lines))

"""The card of an exported model: how it was made, its gate, how to load it, limits."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfloop_plugins._shared.cards import block, code, front, made_with, table
from selfloop_plugins._shared.gate_report import GateReport
from selfloop_plugins._torch.adapter import GGUF, WEIGHTS

from selfloop.records import Adapter
from selfloop.text.answers import UNKNOWN

from .check import LABELS, Check, NotMeasured

# the name of each kind of export, as the card begins
KINDS = {
    "adapter": "A LoRA adapter",
    "hf": "The weights of a model of transformers, with a LoRA adapter in them,",
    "ollama": "A GGUF file for ollama, with a LoRA adapter in its weights,",
}
KEPT_APART = "A GGUF file and a LoRA adapter beside it, for ollama and llama.cpp,"
LLAMA_SERVER = f"llama-server -m base.gguf --lora {GGUF}"
# github.com/ollama/ollama, pull request 14969, and runner/ollamarunner/runner.go before it
ADAPTER_LIMITS = (
    "Ollama takes ADAPTER only up to version 0.34.0, and not for every architecture (not Gemma 3, "
    "not Qwen 3)."
)
# the library that the hub shows for it
LIBRARIES = {"adapter": "peft", "hf": "transformers"}
# figures of the gate, in the order in which the table has them
GATE_LABELS = {
    "kept": "right answers still given",
    "declined": "wrong answers declined",
    "refused": "right answers declined",
    "perplexity": "perplexity of the base's own text",
    "turn kept": "in a chat: right replies still given",
    "turn declined": "in a chat: wrong replies declined",
    "turn refused": "in a chat: right replies declined",
    "turn ended": "in a chat: turns that end",
    "turn requests_refused": "in a chat: requests for no fact that are refused",
    "gold right": "gold questions answered rightly",
    "gold wrong": "gold questions answered wrongly",
}
LIMITS = f"""\
Nobody checked its training data: the model's own answers where the detectors held them likely,
and "{UNKNOWN}" where they did not. Expect it to decline more of the questions that it cannot
answer than its base does, but not all of them, and also some that it can answer. It has no
knowledge that its base lacks. It was trained on short questions in the recipe's prompts and bare; a
chat model also in turns of its template, where the table has rows of a chat. Its behaviour on other
text was not measured, and neither were safety and bias.

The terms of the base model hold for this model too. Whoever publishes it states its licence."""


def card(
    name: str,
    to: str,
    model: Mapping[str, Any],
    adapter: Adapter,
    recipe: str,
    report: GateReport | None,
    check: Check | NotMeasured,
    *,
    apart: bool = False,
) -> str:
    """Return the card of the export that `to` names of the run `name`.

    With `apart` base and adapter are two files of a folder for ollama.
    """
    folder = Path(adapter.path).parent
    kind = KEPT_APART if apart else KINDS[to]
    parts = [
        front(_front_matter(to, model)) + f"\n# {code(f'{name}-{to}')}",
        f'{kind} made by selfloop, which teaches a model to say "{UNKNOWN}" where it does '
        f"not know. Base: {made_with(model)}.",
        "## How it was made",
        f"In round {adapter.round} of the run {code(name)}, by this recipe. The adapter's sha256 "
        f"is {code(adapter.sha256)}, its scale {adapter.scale:g}.",
        block(recipe, "yaml"),
        "## Results of the gate",
        _gate_table(report),
        "## Measured as it was written",
        _check_table(check),
        "## How to load it",
        *(_apart_blocks() if apart else _loading_blocks(to, model, folder)),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(to: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's front matter, which the hub reads.

    `base_model` is left out for a file or a folder, because a path means nothing there.
    """
    base = str(model.get("file", ""))
    matter: dict[str, Any] = {}
    # "owner/name" may be a folder of the working directory, too
    is_hub_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base)
    if is_hub_name and not base.endswith(".gguf") and not Path(base).exists():
        matter["base_model"] = base
    if to in LIBRARIES:
        matter["library_name"] = LIBRARIES[to]
    return matter | {"pipeline_tag": "text-generation", "tags": ["selfloop", "lora"]}


def _gate_table(report: GateReport | None) -> str:
    """Return the gate's figures as a table of Markdown, with a note on their meaning."""
    if report is None:
        return "None: no gate left its figures beside this adapter."
    rows = []
    for name, label in GATE_LABELS.items():
        if name in report.base and name in report.tuned:
            rows.append((label, f"{report.base[name]:.3f}", f"{report.tuned[name]:.3f}"))
    note = (
        "On questions that were never trained on; right and wrong as the detectors expect them, "
        "not as anybody checked."
    )
    return f"{table(('', 'base', 'tuned'), rows)}\n\n{note}"


def _check_table(check: Check | NotMeasured) -> str:
    """Return the rates of the written files beside those of base and adapter."""
    if isinstance(check, NotMeasured):
        return f"Not measured: {code(check.reason)}."
    head, rows = ["", "as written"], []
    if check.reference is not None:
        head.append("base and adapter")
    for rate, label in LABELS.items():
        models = [check.written, check.reference] if check.reference else [check.written]
        rows.append((label, *(f"{getattr(rates, rate):.3f}" for rates in models)))
    text = f"{table(head, rows)}\n\n{check.note()}"
    if check.refusal:
        text += "\n\n**It was written with `--force`: it does not answer as the run's model does.**"
    return text


def _apart_blocks() -> list[str]:
    """Return how to load base and adapter as two files."""
    return [
        block(f"{LLAMA_SERVER}    # llama.cpp", "sh"),
        block("ollama create NAME -f Modelfile\nollama run NAME", "sh"),
        f"{ADAPTER_LIMITS} Elsewhere the adapter has to be merged: `selfloop export RUN --to "
        "ollama --type q8_0`.",
    ]


def _loading_blocks(to: str, model: Mapping[str, Any], folder: Path) -> list[str]:
    """Return blocks of code that load the export: for an adapter, one a format that is there."""
    file = Path(str(model.get("file", "")))
    if to == "ollama":
        return [block("ollama create NAME -f Modelfile\nollama run NAME", "sh")]
    if to == "hf":
        load = 'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER", dtype="auto")'
        return [block(_with_import(load), "python")]
    # an adapter: peft and llama.cpp read different files, and both may be there
    blocks = []
    if (folder / WEIGHTS).is_file():
        source = repr(str(file))
        if file.suffix == ".gguf":  # transformers unpacks it, given its folder and name
            source = f'"FOLDER OF THE BASE", gguf_file={file.name!r}'
        base = f"base = AutoModelForCausalLM.from_pretrained({source})"
        tuned = 'model = PeftModel.from_pretrained(base, "THIS FOLDER")'
        code_lines = "from peft import PeftModel\n" + _with_import(base, tuned)
        blocks.append(block(code_lines, "python"))
    if (folder / GGUF).is_file():
        prompt = shlex.quote("Question: Who wrote Emma?\\nAnswer:")
        base_and_adapter = f"-m {shlex.quote(file.name)} --lora {GGUF}"
        command = f"llama-cli {base_and_adapter} --temp 0 -p {prompt}"
        blocks.append(block(f"{command}\nllama-server {base_and_adapter}", "sh"))
    return blocks


def _with_import(*lines: str) -> str:
    return "\n".join(("from transformers import AutoModelForCausalLM", "", *lines))

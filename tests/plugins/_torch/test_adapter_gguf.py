"""An adapter out of transformers and into llama.cpp: the same change on both sides."""

import json

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")
pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

import numpy as np
import peft
import torch
import transformers as T
from selfloop_plugins import models
from selfloop_plugins._torch import adapter, checkpoint
from selfloop_plugins.backends.hf import build
from selfloop_plugins.backends.llama_cpp import build as build_llama
from tiny_models import CONFIGS, saved

from selfloop.errors import DiskFullError, ModelError
from selfloop.records import Adapter, Continuation

MODEL = "smollm2-135m-instruct"
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read(path):
    """What a GGUF file holds: its fields and its tensors."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if "." in key}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_has_llama_cpps_name_and_its_weights(name, tmp_path):
    kind, config = CONFIGS[name]
    saved(tmp_path, kind(config))
    fields, tensors = read(adapter.write_gguf(tmp_path, config))
    architecture = "llama" if name == "mistral" else name
    assert fields["general.architecture"] == architecture and fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora" and fields["adapter.lora.alpha"] == 8
    layers = {"attn_output", "ffn_down", "ffn_up"}
    layers |= {"attn_qkv"} if name == "phi3" else {"attn_q", "attn_k", "attn_v", "ffn_gate"}
    assert set(tensors) == {
        f"blk.{i}.{of}.weight.lora_{side}" for i in range(2) for of in layers for side in "ab"
    }
    assert tensors["blk.1.ffn_down.weight.lora_a"].shape == (4, 48)
    assert tensors["blk.1.ffn_down.weight.lora_b"].shape == (32, 4)


def test_rows_are_turned_as_llama_cpps_converter_turns_weights():
    rows = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    turned = adapter.permute_rope(rows, heads=2)
    assert turned[:, 0].astype(int).tolist() == [
        3 * i for i in (0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)
    ]


@pytest.mark.parametrize("options", [{"use_rslora": True}, {}])
def test_the_scale_is_that_of_peft(options, tmp_path):
    config = saved(tmp_path, T.LlamaForCausalLM(CONFIGS["llama"][1]), **options)
    fields, _ = read(adapter.write_gguf(tmp_path, config))
    wrapped = peft.PeftModel.from_pretrained(T.LlamaForCausalLM(config), tmp_path)
    scale = wrapped.base_model.model.model.layers[0].mlp.up_proj.scaling["default"]
    assert fields["adapter.lora.alpha"] / 4 == pytest.approx(scale)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_what_a_gguf_adapter_cannot_hold_is_refused(change, why, tmp_path):
    config = saved(tmp_path, T.LlamaForCausalLM(CONFIGS["llama"][1]))
    made = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(made | change))
    with pytest.raises(ModelError, match=why):
        adapter.write_gguf(tmp_path, config)
    assert not list(tmp_path.glob("*.gguf*"))


def test_other_architectures_are_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=r"of the type opt .* phi3, qwen2"):
        adapter.write_gguf(tmp_path, T.OPTConfig())


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    config = saved(tmp_path, T.LlamaForCausalLM(CONFIGS["llama"][1]))

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        adapter.write_gguf(tmp_path, config)
    assert not list(tmp_path.glob("*.gguf*"))


PAIRS = [
    Continuation(
        "The capital of France is",
        " Paris, the city of lights. It is a large town on the river Seine, and",
    ),
    Continuation(
        "Question: Who wrote Hamlet?\nAnswer:", " William Shakespeare wrote the play in 1601.\n"
    ),
]


@pytest.mark.model
def test_llama_cpp_changes_as_transformers_does(tmp_path, monkeypatch):
    base = T.AutoModelForCausalLM.from_pretrained(
        checkpoint.converted(models.locate(MODEL)), dtype=torch.float32
    )
    config = saved(tmp_path, base, size=0.05, r=8, lora_alpha=16, target_modules=LAYERS)
    # in types that round little: bfloat16 would blur the small differences looked for here
    ours, theirs = build(model=MODEL, dtype="float32"), build_llama(model=MODEL, weights="f16")

    def said(backend):
        return np.concatenate([np.array(one) for one in backend.loglikelihood(PAIRS)])

    def tuned(path):
        one = Adapter(str(path), models.sha256(path))
        assert all(backend.load_adapter(one).change > 0.1 for backend in (ours, theirs))
        return said(ours) - before[0], said(theirs) - before[1]

    before = said(ours), said(theirs)
    one, two = tuned(adapter.write_gguf(tmp_path, config))
    assert np.corrcoef(one, two)[0, 1] > 0.99
    monkeypatch.setattr(adapter, "PERMUTED", ())  # what comes out without turning queries and keys
    _, wrong = tuned(adapter.write_gguf(tmp_path, config))
    assert np.abs(one - wrong).mean() > 3 * np.abs(one - two).mean()

"""What can go wrong in a tune: each is one message, a failure of the round, and nothing is lost."""

import json
import re
import resource

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

import peft
import psutil
import torch
import transformers as T
from selfloop_plugins._torch import memory
from selfloop_plugins.backends import hf
from selfloop_plugins.tuners import lora
from selfloop_plugins.tuners.lora import checkpoint, training, tuner
from selfloop_plugins.tuners.lora.gate import Gate
from selfloop_plugins.tuners.lora.settings import LoraSettings
from selfloop_plugins.tuners.lora.tokenized import TokenizedExample
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from selfloop.errors import DiskFullError, ModelError
from selfloop.testing import TunerContract, attempts, tune_context

pytestmark = pytest.mark.slow

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def small(layers=2):
    """A model of letters with random weights."""
    torch.manual_seed(0)
    return T.LlamaForCausalLM(
        T.LlamaConfig(**SIZES, num_hidden_layers=layers, vocab_size=257, eos_token_id=0)
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Such a model in a folder, with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("models") / "small"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(BPE({"<eos>": 0} | {letter: i for i, letter in enumerate(letters, 1)}, []))
    plain.pre_tokenizer, plain.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    T.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>").save_pretrained(folder)
    small().save_pretrained(folder)
    return folder


JUDGE = """
from selfloop import Component, Verdict, hookimpl


class Known:
    def __init__(self, *, every: int = 2) -> None:
        self.every = every

    def verify(self, claims, context):
        number = [int(claim.question.text.split()[-1].rstrip("?")) for claim in claims]
        return [Verdict("known", 0.9 if self.every and not n % self.every else 0.1) for n in number]


@hookimpl
def selfloop_detectors():
    return [Component("known", Known, doc="every second is right")]
"""
RECIPE = """
rounds: 1
plugins: [judge.py]
backend: {{kind: hf, model: {model}, dtype: float32, device: cpu, batch: 16}}
ask: {{questions: 80, sources: [{{kind: file, path: asked.jsonl}}]}}
answer: {{samples: 1, max_tokens: 3}}
detectors: [{{kind: known, every: 2}}]
tuner: {{kind: lora, batch: 8, rank: 2, perplexity: 1000}}
"""


@pytest.fixture
def run(write, selfloop, query, model, monkeypatch):
    """Run the recipe, with options; return what is said of failures, and the folder."""
    monkeypatch.setattr(tuner, "NEUTRAL_TEXTS", 24)
    monkeypatch.setattr(tuner, "NEUTRAL_TOKENS", 16)
    asked = "\n".join(
        json.dumps({"question": f"Who was number {i}?", "answer": f"Marie Curie the {i}th"})
        for i in range(80)
    )
    home = write(
        {"judge.py": JUDGE, "recipe.yaml": RECIPE.format(model=model), "asked.jsonl": asked}
    )

    def _run(*options, code=0):
        done = selfloop("run", "recipe.yaml", *options)
        folder = home / "runs/recipe"
        failures = query(folder, "SELECT step, component, type, message FROM failures")
        if code == 0:
            assert query(folder, "SELECT count(*) FROM attempts WHERE decision != 'failed'") == [
                (80,)
            ]
        assert done.code == (code or (10 if failures else 0)), done.text
        return failures, folder

    return _run


class TestLora(TunerContract):
    component = lora.selfloop_tuners()[0]
    options = {"batch": 8, "rank": 2, "perplexity": 1000}  # noqa: RUF012  the contract declares it

    @pytest.fixture(autouse=True)
    def _small(self, model, monkeypatch):
        for name, value in (("NEUTRAL_TEXTS", 24), ("NEUTRAL_TOKENS", 16)):
            monkeypatch.setattr(tuner, name, value)
        monkeypatch.setattr(Gate, "refusal", "")
        self.backend = hf.build(model=str(model), dtype="float32", device="cpu", batch=16)

    def tune_context(self, folder):
        return tune_context(folder, self.backend, self.component.prompts, attempts(80))


def test_it_tunes(run, monkeypatch):
    """Else nothing below says anything."""
    monkeypatch.setattr(Gate, "refusal", "")
    failures, folder = run()
    assert failures == [] and (folder / "adapters/round-001/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("every", "right"), [(0, "7"), (1, "59")])
def test_nothing_believed_and_nothing_declined(run, every, right):
    (failure,), _ = run("--set", f"detectors=[{{kind: known, every: {every}}}]")
    assert failure[:3] == ("tune", "lora", "ModelError")
    assert re.match(
        rf"there is too little to learn from: of 6\d answers about {right} are right", failure[3]
    )


def test_two_processes_do_not_play_a_run_each(write, selfloop, model, monkeypatch):
    """A launcher that does not number its processes."""
    home = write(
        {
            "judge.py": JUDGE,
            "recipe.yaml": RECIPE.format(model=model),
            "asked.jsonl": json.dumps({"question": "Who?"}),
        }
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = selfloop("run", "recipe.yaml")
    assert done.code == 2 and "this process is one of 2" in done.text and "torchrun" in done.text
    assert not list((home / "runs").iterdir())


def test_a_training_that_does_not_fit_memory_is_not_begun(run, monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 1e9)
    monkeypatch.setattr(tuner, "neutral_texts", None)  # not even this
    ((_, _, kind, message),), _ = run()
    assert kind == "ModelError" and re.match(
        r"training an adapter takes about [\d,]+\.\d GB, and [\d,]+\.\d GB are", message
    )
    assert message.endswith("Lower the tuner's batch (8) or rank (2), or take a smaller model")


def test_a_loss_that_is_no_number(run, monkeypatch):
    wrap = tuner.wrap

    def poisoned(*options, **named):
        wrapped = wrap(*options, **named)
        next(p for p in wrapped.parameters() if p.requires_grad).data[:] = float("nan")
        return wrapped

    monkeypatch.setattr(tuner, "wrap", poisoned)
    (failure,), folder = run()
    assert failure == (
        "tune",
        "lora",
        "ModelError",
        "the loss is nan in step 1: lower the tuner's rate (0.0003)",
    )
    assert list((folder / "adapters/round-001").iterdir()) == []


def test_an_adapter_of_another_model(run, monkeypatch, tmp_path):
    other = peft.get_peft_model(small(5), peft.LoraConfig(r=2, target_modules="all-linear"))
    other.save_pretrained(tmp_path / "other")
    monkeypatch.setattr(Gate, "refusal", "")
    monkeypatch.setattr(
        tuner, "_write_adapter", lambda *_: tmp_path / "other/adapter_model.safetensors"
    )
    ((_, _, kind, message),), _ = run()
    assert kind == "ModelError" and "this one has no model.layers.2" in message


def full(save):
    """Let a function of safetensors find no room for a file.

    A limit of this process stands for that of the disk.
    """

    def _save(*given, **how):
        most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            save(*given, **how)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))

    return _save


@pytest.mark.parametrize("what", ["checkpoint", "adapter"])
def test_a_full_disk(run, monkeypatch, what):
    monkeypatch.setattr(Gate, "refusal", "")
    module, name = (
        (checkpoint, "save_file") if what == "checkpoint" else (peft.peft_model, "safe_save_file")
    )
    monkeypatch.setattr(module, name, full(getattr(module, name)))
    # it stops: without this round's adapter others would differ
    failures, folder = run(code=DiskFullError.exit_code)
    assert failures == []
    assert not list(folder.rglob("adapter_model.safetensors")) and not list(folder.rglob("*.part"))


def test_after_a_full_disk_training_goes_on_from_the_last_checkpoint(tmp_path, monkeypatch):
    def trained(folder, told):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(
            small().requires_grad_(requires_grad=False), peft.LoraConfig(r=2)
        )
        some = [TokenizedExample((5 + i % 40, 7, 3 + i % 5, 11, 2), 2) for i in range(24)]
        data = training.TrainingData(some, some[::7], [], seed=3)
        settings = LoraSettings(epochs=3, rate=2e-4, kl=0.0)
        training.train(wrapped, data, settings, folder, told)
        return [p for p in wrapped.parameters() if p.requires_grad]

    whole, epochs = trained(tmp_path / "whole", lambda one: None), []

    def filled(one):
        monkeypatch.setattr(checkpoint, "save_file", full(checkpoint.save_file))

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match=checkpoint.FILE):
        patch.setattr(checkpoint, "save_file", checkpoint.save_file)
        trained(tmp_path / "cut", filled)
    monkeypatch.undo()
    again = trained(tmp_path / "cut", lambda one: epochs.append(one.epoch))
    assert epochs == [2, 3] and all(map(torch.equal, whole, again))


# --- how much memory


def test_what_a_loaded_model_takes_is_told_from_its_configuration():
    config = small().config
    count = sum(one.numel() for one in small().parameters())
    for dtype, bytes in ((torch.float32, 4), (torch.bfloat16, 2)):
        assert memory.loading(config, dtype) == count * bytes + memory.BESIDE
    config.quantization_config = {"bits": 4}
    assert memory.loading(config, torch.float32) == 0


def test_what_training_takes_grows_with_tokens_rank_and_logits():
    def need(**more):
        usual = {"share": 1.0, "rank": 2, "tokens": 100, "learnt": 10}
        return memory.training(small(), **usual | more)

    # of a head of keys, and one of values, half the width
    layers = 2 * (4 * 2 * 32 - 2 * 16 + 3 * (32 + 48))
    assert need(tokens=200) - need() == pytest.approx(memory.KEPT * layers * 100)
    half = need(share=0.5, tokens=200) - need(share=0.5)
    assert half == pytest.approx(memory.KEPT * layers * 50)
    assert need() < need(rank=4) and need(learnt=20) - need() == 4 * memory.LOGITS * 10 * 257


def test_both_numbers_are_said(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 2e9}))
    memory.refuse(1.7e9, "this", torch.device("cpu"), "Stop")
    with pytest.raises(
        ModelError, match=r"this takes about 1\.9 GB, and 2\.0 GB are free on the cpu\. Stop"
    ):
        memory.refuse(1.9e9, "this", torch.device("cpu"), "Stop")

"""Taking a tuned model along, and going back: what is written loads elsewhere, says the same, and is whole."""

import json
from contextlib import closing
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from selfloop_plugins import models
from selfloop_plugins.export import merge, targets
from selfloop_plugins.hf import adapter as adapters
from selfloop_plugins.hf import build as build_hf
from selfloop_plugins.hf import checkpoint
from selfloop_plugins.llama_cpp import build as build_llama
from test_adapter_gguf import saved

from selfloop.records import Adapter, Continuation, Round
from selfloop.store import RECIPE, Store

MODEL = "smollm2-135m-instruct"
TEXT = Continuation(
    "The capital of France is", " Paris, a large city on the river Seine, and the capital of Peru is Lima."
)


@cache
def shipped():
    """The real model's file, found before a test has a cache of its own."""
    return models.locate(MODEL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a LoRA for the real model, with random weights."""
    import transformers as T

    folder = tmp_path_factory.mktemp("run") / "adapters" / "round-001"
    model = T.AutoModelForCausalLM.from_pretrained(checkpoint.locate(str(shipped())).place)
    adapters.write_gguf(folder, saved(folder, model, size=0.2))
    return folder


def play(folder, *rounds, file=None):
    """A run in which some rounds made an adapter."""
    folder.mkdir(exist_ok=True)
    file = file or shipped()
    store = Store(folder, write=True)
    store.save_file(RECIPE, "backend: {kind: scripted}\n")
    store.pin(model={"file": str(file), "sha256": models.sha256(Path(file)), "chat": True})
    for number, adapter in enumerate(rounds, 1):
        store.save_round(Round(number, (), adapter))
    store.close()
    return folder


def opened(folder):
    """A run's store, to write."""
    return closing(Store(folder, write=True))


def held(path, number=1):
    return Adapter(str(path), models.sha256(path), number)


def change(build, model, adapter=None):
    """The log-probabilities of a text."""
    backend = build(model=str(model), threads=2)
    if adapter:
        backend.load_adapter(adapter)
    (found,) = backend.loglikelihood([TEXT])
    backend.close()
    return np.array(found)


@pytest.mark.model
@pytest.mark.parametrize(("kind", "like"), [(None, 0.8), ("bf16", 0.98)])  # four bits a weight are rounded anew
def test_a_merged_file_says_what_base_and_adapter_say(kind, like, made, tmp_path, selfloop):
    run, out = play(tmp_path / "run", held(made / "adapter.gguf")), tmp_path / "merged.gguf"
    done = selfloop("export", run, "--to", "gguf", "--out", out, *(["--type", kind] if kind else []))
    assert done.code == 0 and str(out) in done.out + done.err
    base = shipped()
    before, wanted = change(build_llama, base), change(build_llama, base, held(made / "adapter.gguf"))
    after = change(build_llama, out)
    assert np.corrcoef(wanted - before, after - before)[0, 1] > like
    if kind is None:
        fields, theirs = (gguf.GGUFReader(path) for path in (out, base))
        assert {k: f.contents() for k, f in fields.fields.items()} == {
            k: f.contents() for k, f in theirs.fields.items()
        }
        assert [(t.name, t.tensor_type) for t in fields.tensors] == [(t.name, t.tensor_type) for t in theirs.tensors]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.model
def test_a_merged_folder_says_what_base_and_adapter_say(made, tmp_path, selfloop):
    run, out = play(tmp_path / "run", held(made / "adapter.gguf")), tmp_path / "merged"
    assert selfloop("export", run, "--to", "hf", "--out", out).code == 0
    wanted = change(build_hf, shipped(), held(made / "adapter.gguf"))
    assert np.abs(change(build_hf, out) - wanted).mean() < 0.05
    assert sorted(path.suffix for path in out.iterdir() if "model" in path.name) == [".safetensors"]


def test_the_adapter_alone(made, tmp_path, selfloop):
    run, out = play(tmp_path / "run", held(made / "adapter.gguf")), tmp_path / "alone"
    done = selfloop("export", run, "--to", "adapter", "--out", out, "--json")
    assert json.loads(done.out) == {"path": str(out), "to": "adapter"}
    assert models.sha256(out / "adapter.gguf") == models.sha256(made / "adapter.gguf")
    assert {path.name for path in out.iterdir()} == {"adapter.gguf", "adapter_config.json", "adapter_model.safetensors"}
    again = selfloop("export", run, "--to", "adapter", "--out", out)
    assert again.code == 2 and "is there already" in again.err
    assert selfloop("export", run, "--to", "adapter", "--out", out, "--force").code == 0


def test_a_folder_for_ollama(made, tmp_path, monkeypatch, selfloop):
    monkeypatch.setattr(targets, "merge_gguf", lambda base, adapter, out: out.write_bytes(b"GGUF"))
    run = play(tmp_path / "run", held(made / "adapter.gguf"))
    assert selfloop("export", run, "--to", "ollama", "--out", tmp_path / "chat").code == 0
    text = (tmp_path / "chat" / "Modelfile").read_text()
    assert "FROM ./model.gguf" in text and "TEMPLATE" not in text and (tmp_path / "chat" / "model.gguf").is_file()
    with opened(run) as store:
        store.pin(model=store.meta()["model"] | {"chat": False})
    assert selfloop("export", run, "--to", "ollama", "--out", tmp_path / "base").code == 0
    assert "Question: {{ .Prompt }}" in (tmp_path / "base" / "Modelfile").read_text()


@pytest.mark.parametrize("kind", [2, 3, 6, 8, 12, 14, 30, 1, 0])
def test_weights_are_packed_as_ggml_reads_them(kind):
    weights = np.random.default_rng(1).normal(0, 1, (6, 512)).astype(np.float32)
    size = merge.packed(weights, kind)
    kinds = {0: np.float32, 1: np.float16}
    stored = size.reshape(6, -1) if kind not in kinds else size.view(kinds[kind]).reshape(6, -1)
    read = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType(kind))
    assert np.abs(read - weights).mean() < 0.12


def test_what_cannot_be_exported_is_said(made, tmp_path, selfloop):
    def said(*words):
        done = selfloop("export", *words)
        assert done.code
        return done.out + done.err

    run = play(tmp_path / "run", held(made / "adapter.gguf"), None)
    assert "no run in" in said(tmp_path / "nowhere", "--to", "gguf")
    assert "no adapter in effect" in said(play(tmp_path / "bare", None), "--to", "gguf")
    assert "round 2 made no adapter; rounds that did: 1" in said(run, "--to", "gguf", "--round", "2")
    assert "--type is for --to gguf" in said(run, "--to", "hf", "--type", "q8_0")
    other = tmp_path / "adapter.gguf"
    other.write_bytes(b"GGUF")
    broken = play(tmp_path / "broken", Adapter(str(other), "0" * 64, 1))
    assert "is gone, or another" in said(broken, "--to", "adapter")
    moved = tmp_path / "model.gguf"
    moved.write_bytes(b"GGUF, once")
    lost = play(tmp_path / "lost", held(made / "adapter.gguf"), file=moved)
    moved.write_bytes(b"GGUF, since")
    assert "is another file than this run was made with" in said(lost, "--to", "gguf")
    moved.unlink()
    assert "is gone; put it back" in said(lost, "--to", "gguf")


@pytest.mark.parametrize("to", ["adapter", "gguf"])
def test_a_full_disk_leaves_nothing_half(to, made, tmp_path, monkeypatch, selfloop):
    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    run = play(tmp_path / "run", held(made / "adapter.gguf"))
    monkeypatch.setattr(targets.shutil, "copyfile", full)
    done = selfloop("export", run, "--to", to, "--out", tmp_path / "out")
    assert done.code and "No space left on device" in done.out + done.err
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "cache"}


# --- rollback


def test_going_back_holds_until_a_new_adapter(made, tmp_path, selfloop):
    one, two = held(made / "adapter.gguf"), held(made / "adapter.gguf", 2)
    run = play(tmp_path / "run", one, two, None)
    assert past_of(run).adapter == two
    assert "the adapter of round 1" in selfloop("rollback", run, "--to", "1").out
    assert past_of(run).adapter == one and past_of(run).rounds == 3
    assert selfloop("rollback", run, "--to", "0", "--json").out.split() == ['{"round":', "0,", '"adapter":', "null}"]
    assert past_of(run).adapter is None
    with opened(run) as store:
        store.save_round(Round(4, (), None))
        assert store.past().adapter is None
        store.save_round(Round(5, (), held(made / "adapter.gguf", 5)))
        assert store.past().adapter.round == 5
    done = selfloop("rollback", run, "--to", "9")
    assert done.code and "there is no round 9" in done.out + done.err


def test_a_run_that_is_played_cannot_be_rolled_back(made, tmp_path, selfloop):
    run = play(tmp_path / "run", held(made / "adapter.gguf"))
    with opened(run):
        assert selfloop("rollback", run, "--to", "0").code == 6


def past_of(folder):
    with opened(folder) as store:
        return store.past()

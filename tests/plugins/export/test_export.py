"""Exports load elsewhere, say the same as the run's model, and are whole; and going back."""

import json
import resource
import signal
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")
pytest.importorskip("gguf", reason="pip install 'selfloop[tune]'")

import gguf
import numpy as np
import torch
import transformers as T
from selfloop_plugins import models
from selfloop_plugins._torch import adapter as adapters
from selfloop_plugins._torch import checkpoint
from selfloop_plugins.export import merge, targets
from selfloop_plugins.export.card import card
from selfloop_plugins.export.check import NotMeasured
from tiny_models import CONFIGS, saved
from tuned_run import PLUGIN, RECIPE, attempts

from selfloop.records import Adapter, Round
from selfloop.storage.run_folder import RECIPE as RECIPE_FILE
from selfloop.storage.store import Store

MODEL = "smollm2-135m-instruct"
TEXT = (
    "The capital of France is Paris, a large city on the river Seine, "
    "and the capital of Peru is Lima."
)
CACHE = models.cache_folder()  # before a test has one of its own


@cache
def shipped():
    """The real model's file."""
    return models.locate(MODEL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a LoRA for the real model, with random weights."""
    folder = tmp_path_factory.mktemp("run") / "adapters" / "round-001"
    model = T.AutoModelForCausalLM.from_pretrained(checkpoint.locate(str(shipped())).place)
    torch.manual_seed(1)
    adapters.write_gguf(folder, saved(folder, model, size=0.2))
    return folder


def play(folder, *rounds, file=None):
    """A run in which some rounds made an adapter."""
    folder.mkdir(exist_ok=True)
    file = file or shipped()
    store = Store(folder, write=True)
    store.save_file(RECIPE_FILE, "backend: {kind: scripted}\n")
    store.set_meta(model={"file": str(file), "sha256": models.sha256(Path(file)), "chat": True})
    for number, adapter in enumerate(rounds, 1):
        store.save_round(Round(number, (), adapter))
    store.close()
    return folder


@pytest.fixture
def run(made, tmp_path):
    return play(tmp_path / "run", held(made / "adapter.gguf"), None)


def opened(folder):
    """A run's store, to write."""
    return closing(Store(folder, write=True))


def held(path, number=1):
    return Adapter(str(path), models.sha256(path), number)


def left(folder):
    """What stands in a folder beside a test's own cache and run."""
    return {path.name for path in folder.iterdir()} - {"cache", "run", "runs"}


# --- what is written


def said(path, lora=None):
    """The log-probabilities of a text's tokens, by llama.cpp alone."""
    from selfloop_plugins.backends.llama_cpp.plain import PlainLlama

    model = PlainLlama(
        str(path),
        lora_path=lora and str(lora),
        logits_all=True,
        n_ctx=64,
        n_threads=2,
        verbose=False,
    )
    tokens = model.tokenize(TEXT.encode())
    model.eval(tokens)
    logits = np.array(model.scores[: len(tokens)], np.float64)
    model.close()
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return logs[np.arange(len(tokens) - 1), tokens[1:]]


def same_change(before, wanted, after):
    """How alike two changes are, and their distance, relative to the size of the wanted one."""
    alike = np.corrcoef(wanted - before, after - before)[0, 1]
    return alike, np.abs(after - wanted).mean() / np.abs(wanted - before).mean()


@cache
def header(path):
    """All bytes before the weights: metadata, vocabulary, template, names and types."""
    reader = gguf.GGUFReader(path)
    return path.read_bytes()[: reader.data_offset], reader


# Q4_1 is rounded anew to Q4_1, and that noise is about as large as this adapter's change: seen were
# .81 and .97. In eight bits (.98 and .12) what is left is llama.cpp's activations, which it packs
# in eight bits too.
@pytest.mark.model
@pytest.mark.parametrize(("kind", "alike", "apart"), [(None, 0.7, 1.2), ("q8_0", 0.97, 0.2)])
def test_a_merged_file_says_what_base_and_adapter_say(
    kind, alike, apart, made, run, tmp_path, selfloop, caplog
):
    out = tmp_path / "merged.gguf"
    done = selfloop(
        "export", run, "--to", "gguf", "--out", out, *(["--type", kind] if kind else [])
    )
    lines = [
        f"Written, with the adapter of round 1: {out}",
        "Not measured: the run held out no question.",
    ]
    assert (done.code, done.out.splitlines()) == (0, lines), done.err
    assert ("rounds away part" in caplog.text) == (kind is None)
    found = same_change(said(shipped()), said(shipped(), made / "adapter.gguf"), said(out))
    assert found[0] > alike and found[1] < apart, found
    (ours, one), (theirs, other) = header(out), header(shipped())
    if kind is None:
        assert ours == theirs
        touched = {
            t.name.removesuffix(".lora_a") for t in gguf.GGUFReader(made / "adapter.gguf").tensors
        }
        changed = {
            t.name
            for t, before in zip(one.tensors, other.tensors, strict=True)
            if not np.array_equal(t.data, before.data)
        }
        assert changed == {name for name in touched if not name.endswith(".lora_b")}
    else:
        kept = [
            {k: f.contents() for k, f in file.fields.items() if "." in k} for file in (one, other)
        ]
        assert {k for k in kept[0] if kept[0][k] != kept[1].get(k)} == {"general.file_type"}
        assert kept[1].keys() <= kept[0].keys() and len(kept[1]["tokenizer.ggml.tokens"]) > 1000
    assert left(tmp_path) == {"merged.gguf"}


def tensors(path, alpha=None, **weights):
    """Write a GGUF file of a few tensors: an adapter's, if it has an alpha."""
    writer = gguf.GGUFWriter(path, "llama")
    if alpha:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, values in weights.items():
        writer.add_tensor(name.replace("_in_", "."), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_scale_alpha_and_rank_are_those_of_lora(scale, tmp_path):
    """By hand: W + scale · alpha / rank · B A; tensors without an adapter stay as they are."""
    draw = np.random.default_rng(1)
    weights, other = (draw.normal(size=(6, 8)).astype(np.float32) for _ in range(2))
    down, up = (
        draw.normal(size=(2, 8)).astype(np.float32),
        draw.normal(size=(6, 2)).astype(np.float32),
    )
    base = tensors(tmp_path / "base", q_in_weight=weights, k_in_weight=other)
    lora = tensors(
        tmp_path / "lora", alpha=6.0, q_in_weight_in_lora_a=down, q_in_weight_in_lora_b=up
    )
    merge.merge_gguf(base, Adapter(str(lora), "", scale=scale), tmp_path / "out")
    found = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "out").tensors}
    assert np.allclose(found["q.weight"], weights + scale * 3 * (up @ down), atol=1e-5)
    assert np.array_equal(found["k.weight"], other)


@pytest.mark.model
def test_a_merged_folder_says_what_base_and_adapter_say(made, run, tmp_path, monkeypatch, selfloop):
    import peft

    monkeypatch.setenv(models.CACHE_VARIABLE, str(CACHE))  # where the model is converted already
    out, base = tmp_path / "merged", checkpoint.locate(str(shipped())).place
    done = selfloop("export", run, "--to", "hf", "--out", out)
    assert done.code == 0, done.err
    tokens, plain = (T.AutoTokenizer.from_pretrained(place) for place in (out, base))
    assert tokens.get_vocab() == plain.get_vocab() and tokens.chat_template == plain.chat_template
    ids = torch.tensor([plain(TEXT).input_ids])
    assert tokens(TEXT).input_ids == ids[0].tolist()

    @torch.inference_mode()
    def logs(model):
        found = model(input_ids=ids).logits[0].log_softmax(-1)
        return found[torch.arange(ids.shape[1] - 1), ids[0, 1:]].double().numpy()

    model = T.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = logs(model)
    wanted = logs(peft.PeftModel.from_pretrained(model, made))
    merged = T.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    # as in the folder it was made of, which rounds: eight bits of each number
    assert merged.dtype == torch.bfloat16
    found = same_change(before, wanted, logs(merged.float()))
    assert found[0] > 0.99 and found[1] < 0.1, found
    assert {path.name for path in out.iterdir() if path.suffix not in (".json", ".jinja")} == {
        "README.md", "model.safetensors"
    }  # fmt: skip
    assert "library_name: transformers\n" in (out / "README.md").read_text()


def test_the_adapter_alone(made, run, tmp_path, selfloop):
    out = tmp_path / "alone"
    done = selfloop("export", run, "--to", "adapter", "--out", out, "--json")
    check = {"questions": 0, "reason": "the run held out no question"}
    assert json.loads(done.out) == {"path": str(out), "to": "adapter", "round": 1, "check": check}
    names = {"adapter.gguf", "adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in out.iterdir()} == names | {"README.md"}
    assert all((out / name).read_bytes() == (made / name).read_bytes() for name in names)


def test_the_card_of_an_adapter(made, tmp_path, selfloop):
    """How it was made, what its gate measured, how to load it; and foreign text stays text."""
    folder = tmp_path / "run" / "adapters" / "round-001"
    folder.mkdir(parents=True)
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = {
        "kept": 1.0,
        "declined": 0.125,
        "refused": 0.0,
        "perplexity": 8.5,
        "gold": [0.5, 0.25],
    }
    gate = {
        "base": before,
        "tuned": before | {"declined": 0.75, "gold": [0.5, 0.125]},
        "refusal": "",
    }
    (folder / "gate.json").write_text(json.dumps({"gate": gate}))
    run = play(
        tmp_path / "run",
        Adapter("adapters/round-001/adapter.gguf", models.sha256(folder / "adapter.gguf"), 1),
    )
    name = "a|`b`\n# <script>"
    with opened(run) as store:
        store.save_file(RECIPE_FILE, "# ``` is no end\nbackend: scripted\n")
        store.set_meta(model=store.meta()["model"] | {"name": name, "parameters": 134_515_008})
    assert selfloop("export", run, "--to", "adapter", "--out", tmp_path / "alone").code == 0
    text = (tmp_path / "alone" / "README.md").read_text()
    _, top, body = text.split("---\n", 2)
    assert top == "library_name: peft\npipeline_tag: text-generation\ntags:\n- selfloop\n- lora\n"
    assert "Base: `` a\\|`b` # <script> `` (sha256 `" in body and "134,515,008 parameters" in body
    assert "\n````yaml\n# ``` is no end\nbackend: scripted\n````\n" in body
    assert "| wrong answers declined | 0.125 | 0.750 |" in body
    assert "| gold questions answered wrongly | 0.250 | 0.125 |" in body
    assert (
        f"gguf_file={shipped().name!r}" in body
        and 'PeftModel.from_pretrained(base, "THIS FOLDER")' in body
    )
    assert f"llama-cli -m {shipped().name} --lora adapter.gguf" in body
    assert "Nobody checked its training data" in body
    (folder / "gate.json").write_text("{}")
    why = refused(selfloop, run, "--to", "adapter", "--out", tmp_path / "other")
    assert "gate.json cannot be read" in why and left(tmp_path) == {"alone"}


def test_the_card_names_a_base_that_is_on_the_hub():
    adapter = Adapter("adapters/round-001/adapter_model.safetensors", "ab", 1)
    for file, named in (("org/model", True), ("models/model.gguf", False), ("/some/where", False)):
        model = {"name": "m", "file": file}
        text = card("run", "adapter", model, adapter, "rounds: 1", None, NotMeasured("why"))
        assert (f"base_model: {file}\n" in text) is named
        assert "no gate left its figures" in text


def test_the_adapter_of_an_earlier_round_and_of_a_run_that_was_moved(made, tmp_path, selfloop):
    folder = tmp_path / "run" / "adapters" / "round-001"
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes((made / "adapter.gguf").read_bytes())
    first = Adapter("adapters/round-001/adapter.gguf", models.sha256(made / "adapter.gguf"), 1)
    run = play(tmp_path / "run", first, held(made / "adapter.gguf", 2)).rename(tmp_path / "moved")
    done = selfloop("export", run, "--to", "adapter", "--round", "1", "--out", tmp_path / "alone")
    assert done.out.startswith("Written, with the adapter of round 1") and left(
        tmp_path / "alone"
    ) == {
        "README.md",
        "adapter.gguf",
    }


@pytest.mark.parametrize("chat", [True, False])
def test_a_folder_for_ollama(chat, run, tmp_path, monkeypatch, selfloop):
    def merged(base, adapter, out, kind):
        out.write_bytes(b"GGUF")
        return frozenset({kind})

    monkeypatch.setattr(targets, "merge_gguf", merged)
    with opened(run) as store:
        store.set_meta(model=store.meta()["model"] | {"chat": chat})
    assert selfloop("export", run, "--to", "ollama", "--type", "q8_0").code == 0
    lines = (tmp_path / "run-ollama" / "Modelfile").read_text().split("\n", 1)
    assert lines[0].startswith("# Tuned by selfloop")
    # it reads no escapes
    template = 'TEMPLATE """Question: {{ .Prompt }}\nAnswer:"""\nPARAMETER stop "\n"\n'
    assert lines[1] == f"FROM ./model.gguf\nPARAMETER temperature 0\n{'' if chat else template}"
    assert left(tmp_path / "run-ollama") == {"Modelfile", "README.md", "model.gguf"}
    assert "ollama create NAME -f Modelfile" in (tmp_path / "run-ollama" / "README.md").read_text()


@pytest.mark.parametrize("kind", [2, 3, 6, 8, 12, 14, 30, 1, 0])
def test_weights_are_packed_as_ggml_reads_them(kind):
    weights = np.random.default_rng(1).normal(0, 1, (6, 512)).astype(np.float32)
    size = merge.packed(weights, kind)
    kinds = {0: np.float32, 1: np.float16}
    stored = size.reshape(6, -1) if kind not in kinds else size.view(kinds[kind]).reshape(6, -1)
    read = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType(kind))
    assert np.abs(read - weights).mean() < 0.12


# --- what is not written


def refused(selfloop, *words):
    done = selfloop("export", *words)
    assert done.code and not done.out
    return done.err


def test_what_cannot_be_exported_is_said(made, run, tmp_path, selfloop):
    assert "no run in" in refused(selfloop, tmp_path / "nowhere", "--to", "gguf")
    assert "no adapter in effect" in refused(
        selfloop, play(tmp_path / "bare", None), "--to", "gguf"
    )
    why = refused(selfloop, run, "--to", "gguf", "--round", "2")
    assert "round 2 made no adapter; rounds that made an adapter: 1" in why
    assert "round 7 is none of the 2 that" in refused(selfloop, run, "--to", "gguf", "--round", "7")
    assert "--type is for --to gguf" in refused(selfloop, run, "--to", "hf", "--type", "q8_0")
    other = tmp_path / "adapter.gguf"
    other.write_bytes(b"GGUF")
    broken = play(tmp_path / "broken", Adapter(str(other), "0" * 64, 1))
    assert "is gone, or another" in refused(selfloop, broken, "--to", "adapter")
    folder = play(tmp_path / "folder", held(made / "adapter_model.safetensors"))
    assert "did not come as GGUF" in refused(selfloop, folder, "--to", "ollama")


@pytest.mark.parametrize("to", ["gguf", "hf", "ollama"])
def test_a_base_that_is_another_by_now_is_not_merged_into(to, made, tmp_path, selfloop):
    base = tmp_path / "model.gguf"
    base.write_bytes(b"GGUF, once")
    run = play(tmp_path / "run", held(made / "adapter.gguf"), file=base)
    base.write_bytes(b"GGUF, since")
    assert "but the file is now another" in refused(selfloop, run, "--to", to)
    base.unlink()
    why = refused(selfloop, run, "--to", to)
    assert "is gone; put it back" in why or "no such file" in why
    assert left(tmp_path) == set()


@pytest.mark.model
@pytest.mark.parametrize("to", ["gguf", "hf"])
def test_an_adapter_of_another_model_is_not_merged(to, tmp_path, monkeypatch, selfloop):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(CACHE))
    other = tmp_path / "other"
    adapters.write_gguf(other, saved(other, CONFIGS["llama"][0](CONFIGS["llama"][1])))
    run = play(tmp_path / "run", held(other / "adapter.gguf"))
    why = refused(selfloop, run, "--to", to, "--out", tmp_path / "out")
    assert "is an adapter of another model" in why or "is no adapter for" in why
    assert left(tmp_path) == {"other"}


@pytest.mark.parametrize(("to", "package"), [("gguf", "gguf"), ("hf", "peft")])
def test_a_missing_package_is_named_with_what_to_do(
    to, package, run, tmp_path, monkeypatch, selfloop
):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    why = refused(selfloop, run, "--to", to, "--out", tmp_path / "out")
    assert f"needs the package {package}" in why and "pip install 'selfloop[tune]'" in why
    assert left(tmp_path) == set()


def test_what_is_there_is_replaced_only_if_it_is_an_export_and_wanted(run, tmp_path, selfloop):
    out, to = tmp_path / "alone", ("export", run, "--to", "adapter", "--out")
    assert selfloop(*to, out).code == 0
    (out / "adapter.gguf").write_bytes(b"older")
    again = selfloop(*to, out)
    assert (
        again.code == 2
        and "is there already" in again.err
        and (out / "adapter.gguf").read_bytes() == b"older"
    )
    assert selfloop(*to, out, "--force").code == 0 and (out / "adapter.gguf").stat().st_size > 5
    for other in (run, tmp_path, Path()):
        never = selfloop(*to, other, "--force")
        assert never.code == 2 and "is no earlier export" in never.err
    assert (run / "run.sqlite").is_file() and left(tmp_path) == {"alone"}


@pytest.mark.model
@pytest.mark.parametrize("words", ["--to adapter", "--to gguf", "--to gguf --type q8_0", "--to hf"])
def test_a_disk_that_takes_no_more_leaves_nothing_half(words, run, tmp_path):
    """No file may grow beyond a megabyte: as a full disk for all that write, llama.cpp too."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "selfloop.cli",
            "export",
            run,
            *words.split(),
            "--out",
            tmp_path / "out",
        ],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
        capture_output=True,
        text=True,
    )
    facts = ("selfloop: the file is larger than the system lets it be: ", "selfloop: cannot write ")
    assert done.returncode == 5 and done.stderr.startswith(facts), done.stderr
    assert "Traceback" not in done.stderr and left(tmp_path) == set()


KILLED = """
import os, signal, sys
from selfloop_plugins.export import targets

def half(base, adapter, out, kind):
    out.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

targets.merge_gguf = half
from selfloop.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("before", [None, b"an earlier export"])
def test_a_kill_leaves_what_was_there(before, run, tmp_path):
    out = tmp_path / "out.gguf"
    if before:
        out.write_bytes(before)
    command = [sys.executable, "-c", KILLED, "export", run, "--to", "gguf", "--out", out, "--force"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out.read_bytes() if out.exists() else None) == before


# --- rollback


def history_of(folder):
    with opened(folder) as store:
        return store.history()


def test_going_back_holds_until_a_new_adapter(made, tmp_path, selfloop):
    one, two = held(made / "adapter.gguf"), held(made / "adapter.gguf", 2)
    run = play(tmp_path / "run", one, two, None)
    assert history_of(run).adapter == two
    assert "the adapter of round 1" in selfloop("rollback", run, "--to", "1").out
    assert history_of(run).adapter == one and history_of(run).rounds == 3
    assert json.loads(selfloop("rollback", run, "--to", "0", "--json").out) == {
        "round": 0,
        "adapter": None,
    }
    assert history_of(run).adapter is None
    assert "no adapter in effect" in selfloop("export", run, "--to", "gguf").err
    with opened(run) as store:
        store.save_round(Round(4, (), None))
        assert store.history().adapter is None
        store.save_round(Round(5, (), five := held(made / "adapter.gguf", 5)))
        assert store.history().adapter == five
    assert selfloop("rollback", run, "--to", "2").code == 0
    assert history_of(run).adapter == two
    with opened(run) as store:
        rounds = list(store.rounds())
        assert [one.adapter and one.adapter.round for one in rounds] == [1, 2, None, None, 5], (
            "the records stay"
        )
        assert [store.active_adapter(rounds[:n]) for n in range(6)] == [
            None,
            one,
            two,
            None,
            None,
            two,
        ]
    assert selfloop("rollback", run, "--to", "5").code == 0
    assert history_of(run).adapter == five


def test_going_back_to_what_is_not_there_is_refused(made, tmp_path, selfloop):
    run = play(
        tmp_path / "run", held(made / "adapter.gguf"), None, Adapter("gone.gguf", "0" * 64, 3)
    )
    for number, why in (
        ("2", "round 2 made no adapter; rounds that made an adapter: 1, 3"),
        ("3", "is gone"),
    ):
        done = selfloop("rollback", run, "--to", number)
        assert done.code == 3 and why in done.err
    assert "round 9 is none of the 3 that" in selfloop("rollback", run, "--to", "9").err
    assert "no run in" in selfloop("rollback", tmp_path / "nowhere", "--to", "0").err
    assert history_of(run).adapter.round == 3, "nothing was noted"


def test_a_run_that_is_played_cannot_be_rolled_back(run, selfloop):
    with opened(run):
        assert selfloop("rollback", run, "--to", "0").code == 6


def test_later_rounds_and_a_rescore_go_by_what_was_gone_back_to(write, selfloop, monkeypatch):
    hashed = PLUGIN.replace(
        'f"sha-{context.round}"', "__import__('hashlib').sha256(b'%d' % context.round).hexdigest()"
    )
    folder = write({"recipe.yaml": RECIPE, "plugin.py": hashed})
    assert hashed != PLUGIN and selfloop("run", "recipe.yaml").code == 0
    run = folder / "runs" / "first"
    first = history_of(run).adapter.sha256
    assert selfloop("rollback", "first", "--to", "0").code == 0
    stored = run / RECIPE_FILE
    stored.write_text(
        stored.read_text().replace("rounds: 2", "rounds: 3").replace("tuner: tunes", "")
    )
    assert selfloop("resume", run).code == 0
    drafted = {
        (a["round"], a["draft"]["adapter"]) for a in attempts(selfloop, "first") if a["draft"]
    }
    assert (3, None) in drafted and (3, first) not in drafted
    monkeypatch.setenv("NO_MODEL", "1")  # what is stored was read under the adapter of its time
    assert selfloop("rescore", "first").code == 0
    assert attempts(selfloop, "first-rescored") == attempts(selfloop, "first")

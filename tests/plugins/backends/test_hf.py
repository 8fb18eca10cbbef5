"""The backend hf: its engine against plain forward passes of many architectures, and SmolLM2."""

import json
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")
pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

import numpy as np
import peft
import torch
import transformers as T
from selfloop_plugins import models
from selfloop_plugins._decoding.prompting import split
from selfloop_plugins._decoding.tasks import GenerateTask, HiddenStateTask, ScoreTask
from selfloop_plugins._torch import checkpoint
from selfloop_plugins._torch.engine import CHUNK, Engine, attentions
from selfloop_plugins._torch.model import refuse_unknown_head
from selfloop_plugins.backends.hf import build, check
from selfloop_plugins.backends.llama_cpp import build as build_llama

from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, Completion, Continuation, Message, Request, Sampling

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct"
real = pytest.mark.model
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
TINY = {
    "llama": (T.LlamaForCausalLM, T.LlamaConfig(**SIZES)),
    "qwen2": (T.Qwen2ForCausalLM, T.Qwen2Config(**SIZES)),
    "qwen3": (T.Qwen3ForCausalLM, T.Qwen3Config(**SIZES, head_dim=8)),
    "mistral": (T.MistralForCausalLM, T.MistralConfig(**SIZES, sliding_window=20)),
    "gemma2": (T.Gemma2ForCausalLM, T.Gemma2Config(**SIZES, head_dim=8, sliding_window=20)),
    "gemma3": (
        T.Gemma3ForCausalLM,
        T.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=20, layer_types=MIXED),
    ),
    "phi3": (T.Phi3ForCausalLM, T.Phi3Config(**SIZES)),
    "cohere": (T.CohereForCausalLM, T.CohereConfig(**SIZES)),
    "granite": (T.GraniteForCausalLM, T.GraniteConfig(**SIZES, logits_scaling=4.0)),
    "gpt_neox": (T.GPTNeoXForCausalLM, T.GPTNeoXConfig(**OLD, intermediate_size=64)),
    "opt": (
        T.OPTForCausalLM,
        T.OPTConfig(**OLD, ffn_dim=64, word_embed_proj_dim=32, pad_token_id=0),
    ),
}


def tiny(name):
    """A model with random weights, large enough that it is sure of something."""
    torch.manual_seed(0)
    kind, config = TINY[name]
    model = kind(config).eval()
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0, 0.15)
    return model


def texts(*lengths):
    """Prompts and continuations of random tokens."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(3, 200, a).tolist(), rng.integers(3, 200, b).tolist()) for a, b in lengths
    ]


# shorter than a chunk, just one, one and a bit, several; and longer than the window of those that
# have one
PAIRS = [
    *texts((5, 3), (CHUNK, 30), (2 * CHUNK, 1), (CHUNK + 1, 20), (100, 70), (1, 1), (40, 2 * CHUNK))
]
PAIRS.append((PAIRS[4][0], [7, 8, 9]))  # a prompt that another one has too
PAIRS.append((PAIRS[4][0][:70], [7, 8]))  # and one that it begins with


@pytest.mark.parametrize("name", TINY)
def test_the_engine_reads_what_a_plain_pass_reads(name):
    model = tiny(name)
    refuse_unknown_head(model)
    engine = Engine(model, 4)
    found = dict(
        engine.run(
            [(prompt, [ScoreTask(i, more)]) for i, (prompt, more) in enumerate(PAIRS)], layer=None
        )
    )
    places = {i: (0, len(more) // 2, len(more)) for i, (_, more) in enumerate(PAIRS)}
    jobs = [
        (prompt, [HiddenStateTask(i, more, places[i])]) for i, (prompt, more) in enumerate(PAIRS)
    ]
    states = dict(engine.run(jobs, layer=-1))
    for i, (prompt, more) in enumerate(PAIRS):
        with torch.inference_mode():
            plain = model(input_ids=torch.tensor([prompt + more]), output_hidden_states=True)
        logs = plain.logits[0].float().log_softmax(-1)
        expected = [float(logs[len(prompt) - 1 + j, token]) for j, token in enumerate(more)]
        assert found[i] == pytest.approx(expected, abs=2e-5)
        last = plain.hidden_states[-1][0, [len(prompt) - 1 + place for place in places[i]]].numpy()
        assert states[i] == pytest.approx(last, abs=2e-5)


def looked(engine, layer, pairs):
    jobs = [(prompt, [HiddenStateTask(i, more, (0, len(more)))]) for i, (prompt, more) in pairs]
    return dict(engine.run(jobs, layer=layer))


@pytest.mark.parametrize("name", TINY)
def test_the_states_of_every_layer_are_those_of_a_plain_pass(name):
    model = tiny(name)
    layers = model.config.num_hidden_layers
    engine = Engine(model, 4)
    for layer in (*range(layers + 1), *range(-layers - 1, 0)):
        found = looked(engine, layer, enumerate(PAIRS))
        for i, (prompt, more) in enumerate(PAIRS):
            with torch.inference_mode():
                plain = model(
                    input_ids=torch.tensor([prompt + more]), output_hidden_states=True
                ).hidden_states
            assert len(plain) == layers + 1
            assert found[i] == pytest.approx(
                plain[layer][0, [len(prompt) - 1, -1]].numpy(), abs=2e-5
            )


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_states_of_every_layer_have_the_same_bits_in_any_batch(name, dtype):
    engine = Engine(tiny(name).to(dtype), 8)
    for layer in range(4):
        together = looked(engine, layer, enumerate(PAIRS))
        for one in enumerate(PAIRS):
            assert (looked(engine, layer, [one])[one[0]] == together[one[0]]).all()


class Letters:
    """A vocabulary of letters."""

    name, vocab_size, bos, eos, template = "letters", 200, "", "", ""

    def token_bytes(self, token):
        return b"%d " % token

    def is_end(self, token):
        return token == 2


def written(engine, prompts, length=24):
    jobs = [
        (p, [GenerateTask(i, 0, Request("", Sampling(max_tokens=length)), Letters(), Best(), None)])
        for i, p in prompts
    ]
    return dict(engine.run(jobs, layer=None))


class Best:
    """Takes the likeliest token."""

    def draw(self, output):
        return output.best


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3"])
def test_the_engine_writes_what_plain_passes_write(name):
    model = tiny(name)
    prompts = list(enumerate(prompt for prompt, _ in PAIRS))
    found = written(Engine(model, 4), prompts)
    for i, prompt in prompts[:6]:
        tokens = list(prompt)
        for _ in found[i].tokens:
            with torch.inference_mode():
                tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert found[i].tokens == tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_batch(name, dtype):
    engine = Engine(tiny(name).to(dtype), 8)
    prompts = list(enumerate(prompt for prompt, _ in PAIRS))
    together = written(engine, prompts)
    assert written(engine, prompts[::-1]) == together
    for one in prompts:
        assert written(engine, [one]) == {one[0]: together[one[0]]}


def test_what_prompts_begin_with_is_read_once(monkeypatch):
    model, read = tiny("llama"), []
    forward = Engine._forward
    monkeypatch.setattr(
        Engine,
        "_forward",
        lambda self, chunks, *how: read.extend(chunks) or forward(self, chunks, *how),
    )
    start = PAIRS[4][0][: 2 * CHUNK]
    written(Engine(model, 4), [(i, [*start, 5 + i]) for i in range(10)], length=1)
    assert len(read) == 2 + 10


def test_attentions_are_those_of_the_model():
    model = tiny("llama")
    (found,) = [weights for _, weights in attentions(model, {0: (PAIRS[0][0] + PAIRS[0][1], 3)})]
    assert model.config._attn_implementation == "sdpa" and found.shape == (3, 4, 3)
    assert (found > 0).all() and (found < 1).all()
    (alone,) = [weights for _, weights in attentions(model, {0: ([5, 6], 1)})]
    states = model.model(torch.tensor([[5, 6]]), output_hidden_states=True).hidden_states[0]
    layer = model.model.layers[0]
    turned = layer.input_layernorm(states)
    cos, sin = model.model.rotary_emb(states, torch.tensor([[0, 1]]))
    q, k = (
        p(turned).view(1, 2, -1, 8).transpose(1, 2)
        for p in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    q, k = T.models.llama.modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
    weights = (q[0, :, 1, None] * k[0].repeat_interleave(2, 0)).sum(-1) / 8**0.5
    assert alone[0, :, 0] == pytest.approx(weights.softmax(-1)[:, 0].detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["nan", "head", "kind"])
def test_a_model_that_cannot_be_run_is_refused(name):
    model = tiny("gemma3")
    if name == "nan":
        model.model.embed_tokens.weight.data[:] = float("nan")
        found = dict(Engine(model, 2).run([([3, 4], [ScoreTask(0, [5])])], layer=None))
        assert isinstance(found[0], RequestError) and "not numbers" in str(found[0])
    elif name == "head":
        model.lm_head.register_forward_hook(
            lambda module, given, made: made if given[0].dim() == 2 else made * 2
        )
        with pytest.raises(ModelError, match="gemma3"):
            refuse_unknown_head(model)
    else:
        model.config.layer_types = ["linear_attention"] * 3
        with pytest.raises(ModelError, match="linear_attention"):
            Engine(model, 2)


@pytest.fixture(scope="module")
def backend():
    made = build(model=MODEL, batch=8)
    yield made
    made.close()


def every(backend, requests):
    return {(i, getattr(done, "sample", 0)): done for i, done in backend.generate(requests)}


@real
def test_it_says_what_llama_cpp_says(backend):
    theirs = build_llama(model=MODEL, weights="bf16")
    asked = [
        Request(
            (Message("user", f"What is the capital of {place}? <|im_end|>"),),
            Sampling(max_tokens=12),
        )
        for place in ("France", "Italy", "Japan", "Spain")
    ]
    asked.append(Request("Once upon a time, café 漢字 <|im_end|> \n\n", Sampling(max_tokens=12)))
    ours, other = every(backend, asked), every(theirs, asked)
    assert sum(ours[key].text == other[key].text for key in ours) >= 4
    assert backend.describe().sha256 == models.sha256(models.locate(MODEL))
    pair = Continuation("The capital of France is", " Paris, the city of lights <|im_end|>.")
    (one,), (two,) = backend.loglikelihood([pair]), theirs.loglikelihood([pair])
    assert one == pytest.approx(two, abs=0.25) and len(one) > 12
    first = Request(pair.prompt, Sampling(max_tokens=1))
    one, two = (every(each, [first])[0, 0].logprobs[0] for each in (backend, theirs))
    assert one == pytest.approx(two, abs=0.2)
    theirs.close()


@real
def test_every_token_has_the_bytes_that_llama_cpp_gives_it(backend):
    theirs = build_llama(model=MODEL)
    ids = range(theirs._vocabulary.vocab_size)
    assert [
        i for i in ids if backend._vocabulary.token_bytes(i) != theirs._vocabulary.token_bytes(i)
    ] == []
    assert [i for i in ids if backend._vocabulary.is_end(i) != theirs._vocabulary.is_end(i)] == []
    theirs.close()


@real
def test_mistakes_in_a_request_stay_in_it(backend):
    fine = Request("One, two,", Sampling(max_tokens=3))
    asked = [
        Request("long " * 9000, Sampling(max_tokens=3)),
        replace(fine, sampling=Sampling(max_tokens=0)),
        replace(fine, sampling=Sampling(json_schema='{"type": "string"}')),
        fine,
    ]
    found = every(backend, asked)
    assert [type(found[i, 0]) for i in range(4)] == [RequestError] * 3 + [Completion]
    assert "reads at most 8192" in str(found[0, 0]) and "llama_cpp can" in str(found[2, 0])


def adapter(folder, model, value=0.05):
    """A LoRA as peft saves it."""
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weights in wrapped.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(0, value)
    wrapped.save_pretrained(folder)
    return Adapter(str(folder / "adapter_model.safetensors"), f"sha of {folder.name}")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A tiny model in a folder, with the tokenizer of SmolLM2 cut to it."""
    folder = tmp_path_factory.mktemp("own") / "model"
    source = checkpoint.converted(models.locate(MODEL))
    tokenizer = T.AutoTokenizer.from_pretrained(source)
    config = T.LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer), "num_hidden_layers": 2})
    torch.manual_seed(0)
    T.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@real
def test_an_adapter_goes_in_and_out(own, tmp_path):
    backend = build(model=str(own), dtype="float32", batch=4)
    asked = [Request("One, two, three,", Sampling(max_tokens=6))]
    bare = every(backend, asked)
    lora = adapter(tmp_path / "lora", T.AutoModelForCausalLM.from_pretrained(own), value=0.5)
    proof = backend.load_adapter(lora)
    tuned = every(backend, asked)[0, 0]
    assert (
        proof.change > 0 and tuned.adapter == lora.sha256 and tuned.logprobs != bare[0, 0].logprobs
    )
    assert backend.load_adapter(replace(lora, scale=0.5)).change < proof.change
    wrapped = peft.PeftModel.from_pretrained(
        T.AutoModelForCausalLM.from_pretrained(own), tmp_path / "lora"
    ).eval()
    assert backend.load_adapter(lora) == proof
    pair = Continuation("One, two, three,", tuned.tokens)
    prompt, tokens = split(backend._vocabulary, pair)
    logs = wrapped(torch.tensor([[*prompt, *tokens]])).logits[0].float().log_softmax(-1)
    expected = [float(logs[len(prompt) - 1 + j, token]) for j, token in enumerate(tokens)]
    assert backend.loglikelihood([pair])[0] == pytest.approx(expected, abs=1e-4)
    assert backend.load_adapter(None).change == 0 and every(backend, asked) == bare


@real
def test_what_is_no_adapter_of_this_model_is_refused(own, tmp_path):
    backend = build(model=str(own), dtype="float32", batch=4)
    asked = [Request("One, two, three,", Sampling(max_tokens=6))]
    bare = every(backend, asked)
    deep = T.LlamaConfig(**{**SIZES, "vocab_size": 300, "num_hidden_layers": 5})
    wide = T.LlamaConfig(**{**SIZES, "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2})
    deeper = adapter(tmp_path / "deeper", T.LlamaForCausalLM(deep))
    wider = adapter(tmp_path / "wider", T.LlamaForCausalLM(wide))
    nothing = adapter(tmp_path / "nothing", T.AutoModelForCausalLM.from_pretrained(own), value=0.0)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "deeper", other)
    (other / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    half = tmp_path / "half"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"")
    for wrong, why in [
        (deeper, "this one has no model.layers.2"),
        (wider, "is no adapter for"),
        (nothing, "changes nothing"),
        (Adapter(str(other), "0"), "of kind IA3"),
        (Adapter(str(half / "adapter_model.safetensors"), "0"), "has no adapter_config.json"),
        (Adapter(str(tmp_path / "none.gguf"), "0"), "no adapter that transformers can load"),
        (replace(nothing, scale=float("nan")), "must be a number"),
    ]:
        with pytest.raises(ModelError, match=why):
            backend.load_adapter(wrong)
        assert every(backend, asked) == bare


@real
def test_a_layer_that_is_none_is_refused(own):
    backend = build(model=str(own), dtype="float32", batch=4)
    pair = Continuation("One, two,", " three")
    named = {layer: backend.hidden_states([pair], layer=layer)[0] for layer in range(-4, 4)}
    assert [layer for layer, one in named.items() if isinstance(one, RequestError)] == [-4, 3]
    assert str(named[3]) == "layer must be from 0 (the tokens) to 2, or from -1 down to -3, not 3"
    assert all((named[layer] == named[layer + 3]).all() for layer in (-3, -2, -1))
    assert not (named[1] == named[2]).all()


@real
def test_a_closed_backend_says_so(own):
    backend = build(model=str(own), dtype="float32", batch=4)
    started = backend.generate([Request("One", Sampling(max_tokens=2 + i)) for i in range(6)])
    next(started)
    backend.close()
    backend.close()
    for use in (
        lambda: list(backend.generate([Request("One")])),
        lambda: backend.loglikelihood([Continuation("One", " two")]),
        lambda: backend.attentions([Continuation("One", " two")]),
        lambda: backend.load_adapter(None),
    ):
        with pytest.raises(ModelError, match="has been closed"):
            use()


def test_what_is_no_model_is_refused(tmp_path, monkeypatch):
    empty, pickled = tmp_path / "empty", tmp_path / "pickled"
    for folder in (empty, pickled):
        folder.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytest_model.bin").write_bytes(b"\x80")
    for model, why in [
        (str(empty), "no config.json"),
        (str(pickled), "pickle"),
        (str(tmp_path / "none.gguf"), "no such file"),
    ]:
        for use in (check, build):
            with pytest.raises(ModelError, match=why):
                use(model=model)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="finds no GPU"):
            build(model="any/name", device="cuda")
    (pickled / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ModelError, match="transformers cannot load"):
        build(model=str(pickled))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 64)
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="cannot convert"):
        build(model=str(broken))
    assert [
        path.name for path in (tmp_path / "cache" / "converted").iterdir() if path.is_dir()
    ] == []


@real
def test_a_model_that_is_too_large_is_refused_with_the_numbers(own, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Free", (), {"available": 1_000_000}))
    with pytest.raises(
        ModelError, match=r"in float32 takes about \d+ MB, and 1\.0 MB are free on the cpu\. Take"
    ):
        build(model=str(own), dtype="float32", device="cpu")


@real
def test_conversion_happens_once(tmp_path, monkeypatch):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "converted").mkdir()
    shipped = tmp_path / "some.gguf"
    shipped.write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 64)
    made = []

    def convert(_, folder):
        made.append(folder)
        folder.mkdir()

    monkeypatch.setattr(checkpoint, "_convert", convert)
    assert (
        checkpoint.converted(shipped) == checkpoint.converted(shipped) == made[0] and len(made) == 1
    )

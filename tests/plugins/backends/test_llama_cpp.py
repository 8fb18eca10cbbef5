"""The llama.cpp backend on the real SmolLM2.

A completion depends on its request alone, and mistakes stay small.
"""

import ctypes
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache as once

import pytest

pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

import numpy as np
import psutil
from conftest import cpu_limit
from selfloop_plugins import models
from selfloop_plugins._decoding.sampling import Sampler, read_logits, settings_error
from selfloop_plugins.backends.llama_cpp import build, cache, check, scheduler
from selfloop_plugins.backends.llama_cpp.grammar import Grammar
from selfloop_plugins.backends.llama_cpp.reference_prompts import REFERENCE_TEXT

from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, Completion, Continuation, Message, Request, Sampling

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct"
WIDTH = 576
real = pytest.mark.model


@pytest.fixture(scope="module")
def backend():
    """Sixteen sequences in a cache that is large enough."""
    made = build(model=MODEL, sequences=16, n_ctx=2048)
    yield made
    made.close()


@pytest.fixture
def calls(monkeypatch):
    """The number of rows of each call of llama_decode, ballast not counted."""
    made, decode = [], cache.Cache.decode
    monkeypatch.setattr(
        cache.Cache, "decode", lambda self, rows: (made.append(len(rows)), decode(self, rows))[1]
    )
    return made


def every(backend, requests):
    """Return what `generate` yields by (request, sample), each once."""
    found = {}
    for i, done in backend.generate(requests):
        key = i, getattr(done, "sample", 0)
        assert key not in found
        found[key] = done
    return found


def one(backend, request):
    """Return a request's only completion."""
    ((_, done),) = backend.generate([request])
    return done


def some(alone, count):
    """Return what the first `count` of `mixed()` give."""
    return {key: done for key, done in alone.items() if key[0] < count}


def wanted(requests):
    """Return the keys that `every` must have."""
    return {(i, k) for i, request in enumerate(requests) for k in range(request.n)}


# --- the same bits, whatever else is asked

RULES = "Answer each of the following questions in a few words, and do not explain your answer.\n\n"


def mixed():
    """Return requests of many lengths and settings.

    Some share beginnings, some are the same, some have samples.
    """
    egypt, peru = (
        RULES + "Question: What is the capital of Egypt?\nAnswer:",
        RULES + "Question: Where is Peru?\nAnswer:",
    )
    words = 'root ::= " " [a-z]+ ("," " " [a-z]+)*'
    return [
        Request(egypt, Sampling(max_tokens=3)),
        Request(peru, Sampling(temperature=1.0, max_tokens=6), n=3, seed=1),
        Request(
            RULES + "Question: Who was it?\nAnswer:",
            Sampling(0.7, top_p=0.9, max_tokens=5),
            entropy=True,
        ),
        Request(peru, Sampling(temperature=1.0, top_k=40, max_tokens=4), n=2, seed=3),
        Request("Rome", Sampling(max_tokens=7), entropy=True),
        Request(
            (Message("user", "Name a colour."),), Sampling(1.0, min_p=0.05, max_tokens=4), seed=5
        ),
        Request(" well" * 260, Sampling(repetition_penalty=1.3, max_tokens=3)),
        Request("Some words:", Sampling(temperature=1.0, grammar=words, max_tokens=5), n=2, seed=7),
        Request(RULES[:50] + " a loud voice", Sampling(0.9, max_tokens=5), seed=8),
        Request("Rome", Sampling(temperature=1.5, max_tokens=6, stop=("a", "e")), n=2, seed=9),
        Request(RULES, Sampling(temperature=1.0, max_tokens=4), seed=10),
        Request(
            egypt + " Cairo\nQuestion: And its river?\nAnswer:",
            Sampling(max_tokens=5),
            entropy=True,
        ),
    ]


def one_by_one(model, requests):
    """Return what each request gives when nothing else runs, or has run."""
    single, found = build(model=model, sequences=1), {}
    for i, request in enumerate(requests):
        found |= {(i, k): done for (_, k), done in every(single, [request]).items()}
        single._scheduler.clear()
    single.close()
    assert set(found) == wanted(requests) and all(
        isinstance(done, Completion) for done in found.values()
    )
    return found


@pytest.fixture(scope="module")
def alone():
    """What each of `mixed()` gives by itself."""
    return one_by_one(MODEL, mixed())


@real
@pytest.mark.parametrize("sequences", [8, 64, 100])
def test_a_completion_is_the_same_bits_in_any_batch_and_order(alone, sequences):
    batched, requests = build(model=MODEL, sequences=sequences), mixed()
    order = random.Random(sequences).sample(range(len(requests)), len(requests))
    found = every(batched, [requests[i] for i in order])
    batched.close()
    assert {(order[i], k): done for (i, k), done in found.items()} == alone


@real
@pytest.mark.parametrize(("name", "ftype"), [("q4_0", 2), ("bf16", 32)])
def test_a_copy_in_another_format_gives_the_same_bits_too(tmp_path, name, ftype):
    """Each format has its own kernels; those of BF16 depend on a batch that is not filled up."""
    path, requests = tmp_path / f"{name}.gguf", mixed()[:6]
    module = "selfloop_plugins.backends.llama_cpp.requantise"
    command = [sys.executable, "-m", module, str(models.locate(MODEL)), str(path), str(ftype), "2"]
    subprocess.run(command, check=True, capture_output=True)
    batched = build(model=str(path), sequences=64)
    found = every(batched, requests)
    batched.close()
    assert found == one_by_one(str(path), requests)
    path.unlink()


@real
def test_refills_and_compactions_change_nothing(alone, monkeypatch):
    compactions, compact = [], scheduler.Scheduler._compact
    monkeypatch.setattr(
        scheduler.Scheduler, "_compact", lambda self: (compactions.append(1), compact(self))[1]
    )
    monkeypatch.setattr(scheduler, "COMPACTION_COST", -(10**6))  # before every call
    tight = build(model=MODEL, sequences=5, n_ctx=300)
    assert every(tight, mixed()) == alone
    assert len(compactions) > 15
    assert tight.loglikelihood(said(alone)) == [done.logprobs for done in alone.values()]
    tight.close()


@real
def test_what_earlier_calls_have_left_changes_nothing(backend, alone, calls):
    others = [
        Request(RULES + "Question: What is the capital of Chad?\nAnswer:", Sampling(max_tokens=2)),
        Request(RULES + "Question: Where is Perugia?\nAnswer:", Sampling(max_tokens=2)),
        Request(" well" * 150 + " done", Sampling(max_tokens=2)),
        Request("Rome is a", Sampling(max_tokens=2)),
    ]
    every(backend, others)
    backend.hidden_states([Continuation(RULES, "Question: What is")])
    # the second time more is there already
    assert rows(backend, alone, calls) > rows(backend, alone, calls)
    backend._scheduler.clear()
    fresh = rows(backend, alone, calls, 6)
    backend._scheduler.clear()
    backend._scheduler.sharing = False
    try:
        assert rows(backend, alone, calls, 6) > fresh + 100
    finally:
        backend._scheduler.sharing = True


def rows(backend, alone, calls, count=12):
    """Return how many rows the first `count` of `mixed()` take; the bits must be the same."""
    calls.clear()
    assert every(backend, mixed()[:count]) == some(alone, count)
    return sum(calls)


@real
def test_sample_k_is_the_same_whatever_n_is(backend):
    ask = Request("Once upon a time", Sampling(temperature=1.0, max_tokens=5), seed=5)
    single, many = every(backend, [ask]), every(backend, [replace(ask, n=40)])
    assert many[0, 0] == single[0, 0] and set(many) == wanted([replace(ask, n=40)])
    assert every(backend, [replace(ask, n=8, skip=(0, 2, 7, 99))]) == {
        (0, k): many[0, k] for k in (1, 3, 4, 5, 6)
    }
    assert every(backend, [replace(ask, skip=(0,))]) == {}
    assert len({done.text for done in many.values()}) > 25
    assert one(backend, replace(ask, seed=6)).text != single[0, 0].text


@real
def test_more_than_the_cache_holds_waits_for_its_turn(backend):
    luck = random.Random(0)
    requests = [
        Request(
            f"{RULES[: 60 * (i % 2)]}{i}:" + " well" * luck.choice([0, 2, 8, 24]),
            Sampling(temperature=i % 3 / 2, max_tokens=luck.choice([1, 2, 4, 8])),
            n=1 + (i % 8 == 3),
            seed=i,
        )
        for i in range(39)
    ]
    just_fits = Request(" well" * 260, Sampling(max_tokens=40, stop=("e", "a", "o")))
    requests.insert(20, just_fits)
    assert len(backend._prompt_tokens(just_fits)) + 40 == 300
    tight = build(model=MODEL, sequences=64, n_ctx=300)
    found = every(tight, requests)
    tight.close()
    assert set(found) == wanted(requests)
    assert found == every(backend, requests)


@real
def test_a_cache_that_was_opened_small_grows(backend):
    small = build(model=MODEL)
    short = Request("One day", Sampling(max_tokens=2))
    long = replace(short, sampling=Sampling(max_tokens=1900, stop=("e", "a", "o")))
    first = one(small, short)
    cells = small._cache.cells
    assert one(small, long) == one(backend, long)
    assert small._cache.cells > cells and one(small, short) == first
    small.close()


# --- text and tokens


@real
def test_text_is_data_and_only_the_template_has_special_tokens(backend):
    model = backend._model
    end = model.controls["<|im_end|>"]
    text = "a <|im_end|>\n<|im_start|>system b"
    for request in (Request(text), Request((Message("user", text),), open_turn=True)):
        tokens = backend._prompt_tokens(request)
        inside = tokens[len(tokens) - len(backend._prompt_tokens(Request(text))) :]
        assert b"".join(map(model.token_bytes, inside)).decode() == text
        assert end not in inside
        assert isinstance(
            one(backend, replace(request, sampling=Sampling(max_tokens=1))), Completion
        )
    whole = (
        "<|im_start|>system\nBe kind<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    chat = backend._prompt_tokens(Request((Message("system", "Be kind"), Message("user", "Hi"))))
    assert chat == raw_tokens(model, whole)


def raw_tokens(model, text):
    """Return what llama.cpp itself makes of a whole rendered prompt, special tokens read."""
    from selfloop_plugins.backends.llama_cpp.model import lib

    buffer = (ctypes.c_int32 * 500)()
    count = lib.llama_tokenize(
        model.vocab, text.encode(), len(text.encode()), buffer, 500, False, True
    )
    return buffer[:count]


@real
def test_an_open_turn_is_gone_on_with(backend):
    tokens = backend._prompt_tokens(Request((Message("user", ""),), open_turn=True))
    assert tokens == raw_tokens(
        backend._model, b"".join(map(piece_with_specials(backend._model), tokens)).decode()
    )
    assert (
        backend._model.token_bytes(tokens[-2]) + backend._model.token_bytes(tokens[-1]) == b"user\n"
    )


def piece_with_specials(model):
    names = {token: name.encode() for name, token in model.controls.items()}
    return lambda token: names.get(token) or model.token_bytes(token)


@real
@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", "\N{BOM}x", "🌟" * 20, "\x1b[0m\r\n\t", " "], ids=range(6)
)
def test_odd_text_is_served(backend, text):
    for prompt in (text, (Message("user", text),)):
        done = one(backend, Request(prompt, Sampling(max_tokens=1)))
        assert isinstance(done, Completion) and len(done.tokens) == 1


@real
def test_stop_strings_cut_the_text_across_tokens(backend):
    ask = Request("One, two, three, four, five, six, seven, eight, nine,", Sampling(max_tokens=12))
    full = one(backend, ask)
    stop = full.text[3:9]
    cut = one(backend, replace(ask, sampling=replace(ask.sampling, stop=("never", stop))))
    assert cut.finish == "stop" and full.finish == "length"
    assert cut.text == full.text[: full.text.index(stop)]
    assert cut.tokens == full.tokens[: len(cut.tokens)] and len(cut.tokens) == len(cut.logprobs)
    assert stop in b"".join(map(backend._model.token_bytes, cut.tokens)).decode()
    first = one(
        backend,
        replace(ask, sampling=replace(ask.sampling, stop=(full.text[8:10], full.text[4:9]))),
    )
    assert first.text == full.text[:4]


@real
def test_an_end_token_is_among_the_tokens_and_not_in_the_text(backend):
    done = one(backend, Request((Message("user", "Say hi."),), Sampling(max_tokens=60)))
    assert done.finish == "stop"
    assert backend._model.is_end(done.tokens[-1]) and "<|" not in done.text
    assert len(done.tokens) == len(done.logprobs)


@real
def test_characters_spread_over_tokens_come_out_whole(backend):
    # it answers in stars
    emoji = Request((Message("user", "Say <|im_end|> hi to me"),), Sampling(max_tokens=9))
    assert one(backend, emoji).text.startswith("🌟")
    assert one(backend, replace(emoji, sampling=Sampling(max_tokens=9, stop=("🌟",)))).text == ""


@real
def test_a_repetition_penalty_is_felt(backend):
    loop = Request("la la la la la la la la la", Sampling(max_tokens=12))
    plain = one(backend, loop)
    varied = one(backend, replace(loop, sampling=replace(loop.sampling, repetition_penalty=1.5)))
    assert len(set(varied.tokens)) > len(set(plain.tokens))
    # of the bare model
    assert backend.loglikelihood([Continuation(loop.prompt, varied.tokens)]) == [varied.logprobs]


@real
@pytest.mark.parametrize(
    "prompt", ["Question: Who was Blorgo?\nAnswer:", "Blorgo was? ", (Message("user", "Who?"),)]
)
def test_a_careful_answer_declines(backend, prompt):
    sure, careful = (
        one(backend, Request(prompt, Sampling(max_tokens=2, decline_bias=by))) for by in (0.0, 60.0)
    )
    assert not sure.text.strip().startswith("I") and careful.text.strip().startswith("I")
    open_turn = isinstance(prompt, str)
    # as it is
    assert backend.loglikelihood([Continuation(prompt, careful.tokens, open_turn)]) == [
        careful.logprobs
    ]


@real
def test_log_probabilities_agree_with_the_high_level_class(backend):
    from selfloop_plugins.backends.llama_cpp.plain import PlainLlama

    tokens = backend._prompt_tokens(Request(REFERENCE_TEXT))[:160]
    scores = backend.loglikelihood(
        [Continuation(backend._model.token_bytes(tokens[0]).decode(), tuple(tokens[1:]))]
    )[0]
    plain = PlainLlama(str(models.locate(MODEL)), n_ctx=256, logits_all=True, verbose=False)
    plain.eval(tokens)
    expected = [
        log_softmax(row)[token] for row, token in zip(plain.scores, tokens[1:], strict=False)
    ]
    plain.close()
    # Other kernels, 4-bit weights, 8-bit activations: it differs from itself by as much when it
    # reads one by one.
    assert np.abs(np.array(expected) - scores).mean() < 0.15
    assert np.corrcoef(expected, scores)[0, 1] > 0.99


# --- grammars

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
)


@real
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_text_keeps_to_a_grammar(backend, temperature):
    yes = Sampling(temperature, grammar='root ::= " yes" | " no" | " Ähm 日本"', max_tokens=20)
    person = Sampling(temperature, json_schema=PERSON, max_tokens=60, top_p=0.95)
    free = Request("A person, in JSON:", Sampling(temperature, max_tokens=5), n=2)
    asked = [
        Request("Is water wet? Answer:", yes, n=4),
        Request("A person, in JSON:", person, n=3),
        free,
    ]
    found = every(backend, asked)
    assert set(found) == wanted(asked)
    assert {found[0, k].text for k in range(4)} <= {" yes", " no", " Ähm 日本"}
    for k in range(3):
        assert found[1, k].finish == "stop" and backend._model.is_end(found[1, k].tokens[-1])
        assert set(json.loads(found[1, k].text)) == {"name", "age"}
    assert every(backend, [free]) == {(0, k): found[2, k] for k in range(2)}


@real
def test_a_string_in_json_has_no_control_characters(backend):
    """JSON forbids them; a line break would be the first to come."""
    grammar, tokens = (
        Grammar(backend._model, Sampling(json_schema='{"type": "string"}')),
        backend._model._tokenize_plain,
    )
    grammar.accept(*tokens('"'))
    assert grammar.allows(*tokens("a"))
    assert not any(grammar.allows(*tokens(control)) for control in "\n\t\r")


@real
@pytest.mark.parametrize(
    "schema", [{"type": "integer", "maximum": 9}, {"type": "integer", "minimum": 5000}], ids=str
)
def test_a_schema_is_kept_to_or_refused(backend, schema):
    done = one(
        backend,
        Request("100 times 10 is ", Sampling(json_schema=json.dumps(schema), max_tokens=20)),
    )
    if isinstance(done, Completion):
        assert (
            schema.get("minimum", -math.inf)
            <= json.loads(done.text)
            <= schema.get("maximum", math.inf)
        )


BAD_GRAMMARS = [
    Sampling(grammar="root ::= ("),
    Sampling(grammar='other ::= "a"'),
    Sampling(grammar='root ::= root "a"'),
    Sampling(grammar="root ::= [^\\x00-\\U0010FFFF]"),
    Sampling(grammar='root ::= "a\0b"'),
    Sampling(grammar='root ::= "\ud800"'),
    Sampling(json_schema="{"),
    Sampling(json_schema="3"),
    Sampling(json_schema='{"type": "nonsense"}'),
    Sampling(json_schema='{"$ref": "#/nowhere"}'),
    Sampling(json_schema="[" * 100_000),
    Sampling(grammar='root ::= "a"', json_schema=PERSON),
]


@real
@pytest.mark.parametrize("bad", BAD_GRAMMARS, ids=range(len(BAD_GRAMMARS)))
def test_a_grammar_that_cannot_be_used_fails_alone(backend, bad):
    fine = Request("Hello", Sampling(max_tokens=2))
    found = every(backend, [fine, Request("Hello", bad, n=3), fine])
    assert set(found) == {(0, 0), (1, 0), (2, 0)}
    assert isinstance(found[1, 0], RequestError) and str(found[1, 0])
    assert found[0, 0].tokens == found[2, 0].tokens


# --- mistakes stay small

NAN = float("nan")
BAD_SETTINGS = [
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": NAN}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"top_k": -1}, "top_k"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_p": NAN}, "top_p"),
    ({"min_p": -0.1}, "min_p"),
    ({"min_p": 1.1}, "min_p"),
    ({"min_p": NAN}, "min_p"),
    ({"decline_bias": NAN}, "decline_bias"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ({"repetition_penalty": -1.0}, "repetition_penalty"),
    ({"repetition_penalty": NAN}, "repetition_penalty"),
    ({"repetition_penalty": math.inf}, "repetition_penalty"),
    ({"stop": ("a", "")}, "stop string is empty"),
    ({"grammar": 'root ::= "a"', "json_schema": "{}"}, "grammar and a JSON schema"),
]


@real
def test_what_cannot_be_served_fails_alone(backend):
    fine = Request("Hello", Sampling(max_tokens=3))
    short = Sampling(max_tokens=3)
    bad = [(Request("x", Sampling(**settings), n=2), word) for settings, word in BAD_SETTINGS]
    bad += [
        (Request("", short), "the prompt is empty"),
        (Request((), short), "at least one message"),
        (Request("x", short, n=0), "n must be 1 or more"),
        (Request("word " * 3000, short), "n_ctx is 2048: raise n_ctx to"),
        (Request("word " * 3000, short), "lower max_tokens"),
        (Request("x", Sampling(max_tokens=2048)), "n_ctx is 2048: raise n_ctx to 2049"),
        (Request("x", Sampling(max_tokens=9000)), "reads at most 8192"),
        (Request((Message("", "x"),), replace(short, top_k=-3)), "top_k"),
    ]
    found = every(backend, [fine, *(request for request, _ in bad), fine])
    assert set(found) == {(i, 0) for i in range(len(bad) + 2)}
    for i, (_, word) in enumerate(bad, start=1):
        assert isinstance(found[i, 0], RequestError)
        assert word in str(found[i, 0])
    assert found[0, 0] == found[len(bad) + 1, 0] and found[0, 0].text


@real
def test_without_n_ctx_only_the_model_sets_a_limit():
    free = build(model=MODEL, sequences=2)
    asked = [
        Request("x", Sampling(max_tokens=8192)),
        Request("word " * 9000),
        Request("x", Sampling(max_tokens=2)),
    ]
    found = every(free, asked)
    free.close()
    assert "1 prompt tokens + 8192 that may follow = 8193, but the model reads at most 8192" in str(
        found[0, 0]
    )
    assert "reads at most 8192" in str(found[1, 0])
    assert isinstance(found[2, 0], Completion)


@real
def test_nothing_asked_is_nothing_answered(backend):
    assert every(backend, []) == {}
    assert backend.loglikelihood([]) == backend.hidden_states([]) == []


@real
def test_a_damaged_file_says_so(tmp_path):
    whole = models.locate(MODEL).read_bytes()
    for name, size in (("cut", len(whole) // 2), ("alien", 2000), ("head", 30)):
        cut = tmp_path / f"{name}.gguf"
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=rf"cannot load .*{name}\.gguf: .+ fetch it again"):
            build(model=str(cut))
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        build(model=str(tmp_path / "text.gguf"))
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="GGUF"):
        build(model=str(tmp_path / "empty.gguf"))
    with pytest.raises(ModelError, match="no such file"):
        check(model=str(tmp_path / "none.gguf"))
    with pytest.raises(ModelError, match="is a folder"):
        build(model=str(tmp_path))


@real
def test_an_adapter_is_no_model(tmp_path):
    path = write_lora(tmp_path / "lora.gguf")
    with pytest.raises(ModelError, match=r"lora\.gguf"):
        build(model=str(path))


@real
def test_a_cache_beyond_memory_is_refused():
    with pytest.raises(ModelError, match=r"GB free\. Lower n_ctx \(now 1000000000\)"):
        build(model=MODEL, n_ctx=10**9)


@once
def tensors():
    """Return the tensors of the model's file by name."""
    gguf = pytest.importorskip("gguf")
    return {tensor.name: tensor for tensor in gguf.GGUFReader(models.locate(MODEL)).tensors}


@real
def test_weights_that_are_not_numbers_make_every_request_fail(tmp_path):
    path = tmp_path / "nan.gguf"
    shutil.copyfile(models.locate(MODEL), path)
    with path.open("r+b") as file:
        file.seek(int(tensors()["output_norm.weight"].data_offset))
        file.write(np.full(WIDTH, np.nan, np.float32).tobytes())
    damaged = build(model=str(path), sequences=8)
    path.unlink()
    try:
        asked = [request for request in mixed() if request.prompt != " well" * 260]
        found = every(damaged, asked)
        assert set(found) == {(i, 0) for i in range(len(asked))}
        scores = damaged.loglikelihood(
            [Continuation("One", " two three"), Continuation("", "four five")]
        )
        states = damaged.hidden_states(
            [Continuation("One", " two three"), Continuation("four", "")]
        )
        for error in [*found.values(), *scores, *states]:
            assert isinstance(error, RequestError) and "damaged" in str(error)
        with pytest.raises(ModelError, match="changes nothing"):
            damaged.load_adapter(lora(tmp_path))
        assert isinstance(one(damaged, mixed()[0]), RequestError)
    finally:
        damaged.close()


# --- scoring


def said(completions):
    """Return the completions of `mixed()` as continuations of their prompts."""
    asked = {key: mixed()[key[0]] for key in completions}
    return [
        Continuation(asked[key].prompt, done.tokens, asked[key].open_turn)
        for key, done in completions.items()
    ]


@real
def test_what_was_written_is_scored_as_when_it_was_written(backend, alone):
    expected = [done.logprobs for done in alone.values()]
    assert backend.loglikelihood(said(alone)) == expected
    assert backend.loglikelihood(said(alone)[::-1]) == expected[::-1]
    backend._scheduler.clear()
    assert [backend.loglikelihood([pair])[0] for pair in said(alone)[:4]] == expected[:4]


@real
def test_text_is_scored_as_its_tokens(backend):
    prompt, text = "The capital of France is", " Paris, and that of Peru is Lima."
    tokens = tuple(backend._prompt_tokens(Request(text)))
    assert backend._prompt_tokens(Request(prompt + text)) == [
        *backend._prompt_tokens(Request(prompt)),
        *tokens,
    ]
    by_text, by_tokens = backend.loglikelihood(
        [Continuation(prompt, text), Continuation(prompt, tokens)]
    )
    assert by_text == by_tokens and len(by_text) == len(tokens)
    chat = (Message("user", "Hi"),)
    by_text, by_tokens = backend.loglikelihood(
        [Continuation(chat, "Hello there"), Continuation(chat, tokens)]
    )
    assert len(by_text) == 2 and all(p < 0 for p in by_text) and len(by_tokens) == len(tokens)


@real
def test_a_token_that_reaches_over_the_edge_is_the_continuations_first(backend):
    whole = backend._prompt_tokens(Request("The capital of France"))
    split, plain = backend.loglikelihood(
        [
            Continuation("The capital of Fra", "nce"),
            Continuation("The capital of", tuple(whole[3:])),
        ]
    )
    assert len(whole) == 4 and split == plain


@real
def test_nothing_to_score(backend):
    pairs = [Continuation("One", ""), Continuation("One", ()), Continuation("One", " two")]
    *nothing, something = backend.loglikelihood(pairs)
    assert nothing == [(), ()] and len(something) == 1


@real
def test_a_text_by_itself(backend):
    """This model has no token that begins a text, so the first is not scored."""
    text = "The capital of France is Paris."
    tokens = backend._prompt_tokens(Request(text))
    (scores,) = backend.loglikelihood([Continuation("", text)])
    begun = backend._model.token_bytes(tokens[0]).decode()
    assert [scores] == backend.loglikelihood([Continuation(begun, tuple(tokens[1:]))])
    assert len(scores) == len(tokens) - 1


@real
def test_tokens_by_themselves_are_scored_as_their_text(backend):
    text = "The capital of France is Paris."
    tokens = tuple(backend._prompt_tokens(Request(text)))
    assert backend.loglikelihood([Continuation("", tokens)]) == backend.loglikelihood(
        [Continuation("", text)]
    )


@real
def test_many_that_share_a_prompt_are_scored_in_few_calls(backend, calls):
    backend._scheduler.clear()
    pairs = [Continuation(RULES + "The number", f" {i} is a number.") for i in range(40)]
    found = backend.loglikelihood(pairs)
    own = [len(backend._prompt_tokens(Request(str(pair.text)))) for pair in pairs]
    assert [len(scores) for scores in found] == own
    assert sum(calls) <= len(backend._prompt_tokens(Request(RULES))) + 10 + sum(own)
    assert len(calls) < 15
    for i in (0, 17, 39):
        backend._scheduler.clear()
        assert backend.loglikelihood([pairs[i]]) == [found[i]]


@real
def test_a_pair_that_cannot_be_scored_fails_alone(backend):
    fine, size = Continuation("The capital of France is", " Paris"), backend._model.vocab_size
    bad = [
        (Continuation("x", (1, size)), f"{size} is no token"),
        (Continuation("x", (-1,)), "-1 is no token"),
        (Continuation("x", " word" * 3000), "n_ctx is 2048"),
        (Continuation("x", " word" * 9000), "reads at most 8192"),
        (Continuation("word " * 3000, " x"), "n_ctx is 2048"),
        (Continuation((), " x"), "at least one message"),
    ]
    first, *found, last = backend.loglikelihood([fine, *(pair for pair, _ in bad), fine])
    assert first == last and len(first) == 1
    for error, (_, word) in zip(found, bad, strict=True):
        assert isinstance(error, RequestError) and word in str(error)
    assert backend.loglikelihood([Continuation("x", (size - 1, 0))])[0]


# --- entropy


def log_softmax(row):
    """Return it in float64."""
    row = row.astype(np.float64)
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def entropy(row):
    """Return it in float64, in nats."""
    logs = log_softmax(row)
    logs = logs[np.isfinite(logs)]
    return float(-(np.exp(logs) * logs).sum())


@pytest.mark.parametrize("offset", [0, 50, -79, -81, 100, -300, 1000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 8.0])
def test_the_entropy_of_a_row(offset, spread):
    luck = np.random.default_rng(0)
    for size in (1, 2, 300, 50_000):
        row = (luck.normal(size=size) * spread + offset).astype(np.float32)
        for hidden in (0, size // 2, size - 1):
            row[1 : 1 + hidden] = -np.inf
            found = read_logits(row, np.empty_like(row))
            assert found.entropy() == pytest.approx(entropy(row), abs=5e-4)
            assert found.total == pytest.approx(float(row[0]) - log_softmax(row)[0], abs=1e-5)
            assert found.logprob(found.best) == pytest.approx(log_softmax(row).max(), abs=1e-5)
            first, second = np.exp(np.sort(np.append(log_softmax(row), -np.inf))[:-3:-1])
            assert found.margin() == pytest.approx(first - second, abs=1e-5)


@real
def test_entropies_are_those_of_the_models_rows(backend, monkeypatch):
    rows = []
    monkeypatch.setattr(
        cache,
        "read_logits",
        lambda row, scratch: (rows.append(row.copy()), read_logits(row, scratch))[1],
    )
    asked = Request(
        "The capital of", Sampling(temperature=0.5, top_k=3, max_tokens=6), entropy=True
    )
    done = one(backend, asked)
    assert done.entropies == pytest.approx([entropy(row) for row in rows], abs=1e-4)
    assert len(done.entropies) == len(done.tokens) == len(rows)
    monkeypatch.undo()
    plain, other = replace(asked, entropy=False), replace(asked, n=3, seed=1)
    found = every(backend, [plain, asked, other])
    assert found[0, 0] == replace(done, entropies=None, margin=None) and found[1, 0] == done
    assert len(found[2, 2].entropies) == len(found[2, 2].tokens)
    assert one(backend, plain).entropies is None


# --- hidden states


@real
def test_hidden_states_are_the_same_alone_and_in_a_batch(backend):
    backend._scheduler.clear()
    pairs = [Continuation(RULES + f"Say {i}.", " well" * (i % 7) + " done") for i in range(20)]
    pairs += [
        Continuation((Message("user", "Hi"),), "Hello"),
        Continuation("No more", ""),
        Continuation("", "By itself"),
    ]
    found = backend.hidden_states(pairs)
    assert all(state.shape == (2, WIDTH) and state.dtype == np.float32 for state in found)
    assert all(np.isfinite(state).all() and np.abs(state).max() > 0.1 for state in found)
    for i in (0, 5, 6, 13, 20, 21, 22):
        backend._scheduler.clear()
        (single,) = backend.hidden_states([pairs[i]])
        assert (single == found[i]).all()
    assert all((a == b).all() for a, b in zip(backend.hidden_states(pairs), found, strict=True))
    assert (found[21][0] == found[21][1]).all()


@real
def test_places_of_hidden_states(backend):
    tokens = tuple(backend._prompt_tokens(Request(" Paris, and that of Peru is Lima.")))
    whole, last = Continuation("The capital of France is", tokens), len(tokens)
    (every_place,) = backend.hidden_states([whole], range(last + 1))
    assert (
        every_place.shape == (last + 1, WIDTH) and len(np.unique(every_place, axis=0)) == last + 1
    )
    (some,) = backend.hidden_states([whole], (-1, 0, 3, 3, -2, -last - 1))
    assert (some == every_place[[last, 0, 3, 3, last - 1, 0]]).all()
    (ends,) = backend.hidden_states([replace(whole, text=tokens[:4])])
    assert (ends == every_place[[0, 4]]).all()
    for places in ((last + 1,), (0, -last - 2), ()):
        (bad,) = backend.hidden_states([whole], places)
        assert isinstance(bad, RequestError) and f"from 0 to {last}" in str(bad)
    longer = replace(whole, text=(*tokens, *tokens))
    bad, good = backend.hidden_states([whole, longer], (last + 1,))
    assert isinstance(bad, RequestError) and good.shape == (1, WIDTH)


@real
def test_hidden_states_are_what_the_logits_are_made_of(backend):
    gguf = pytest.importorskip("gguf")
    embedding = tensors()["token_embd.weight"]
    table = gguf.quants.dequantize(embedding.data, embedding.tensor_type)
    tokens = tuple(backend._prompt_tokens(Request(" Paris, and that of Peru is Lima.")))
    pair = Continuation("The capital of France is", tokens)
    (states,), (scores,) = (
        backend.hidden_states([pair], range(len(tokens))),
        backend.loglikelihood([pair]),
    )
    made = [log_softmax(table @ state)[token] for state, token in zip(states, tokens, strict=True)]
    assert np.abs(np.array(made) - scores).max() < 0.1


@real
def test_hidden_states_leave_nothing_behind(backend, alone):
    backend._scheduler.clear()
    backend.hidden_states([Continuation(request.prompt, "") for request in mixed()[:6]])
    assert every(backend, mixed()[:6]) == some(alone, 6)


# --- adapters


def write_lora(path, size=0.05, *, architecture="llama", width=WIDTH, layer=5):
    """Write a LoRA of rank 2 on one layer's output projection; return its path."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    luck = np.random.default_rng(0)
    for side, shape in (("lora_a", (2, width)), ("lora_b", (width, 2))):
        weights = (luck.normal(size=shape) * (size if side == "lora_b" else 1)).astype(np.float32)
        writer.add_tensor(f"blk.{layer}.attn_output.weight.{side}", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def lora(folder, **options):
    """Return an adapter."""
    path = write_lora(folder / "lora.gguf", **options)
    return Adapter(str(path), models.sha256(path))


@pytest.fixture
def bare(backend):
    """A prompt, what the bare model says, and the same again at the end."""
    ask = Request("A poem about the sea and all the rivers that", Sampling(max_tokens=4))
    before = one(backend, ask)
    assert before.adapter is None
    yield ask, before
    assert backend.load_adapter(None).change == 0
    assert one(backend, ask) == before


@real
def test_an_adapter_is_in_effect_until_it_is_taken_off(backend, bare, tmp_path):
    ask, before = bare
    adapter = lora(tmp_path)
    proof = backend.load_adapter(adapter)
    assert proof.change > 0.01 and proof.adapter == adapter
    tuned = one(backend, ask)  # the bare model has just read this prompt: none of that may be used
    assert tuned.adapter == adapter.sha256 and tuned.logprobs != before.logprobs
    assert every(backend, [ask] * 9)[8, 0] == tuned
    assert backend.loglikelihood([Continuation(ask.prompt, tuned.tokens)]) == [tuned.logprobs]
    backend._scheduler.clear()
    assert one(backend, ask) == tuned
    assert backend.load_adapter(adapter) == proof
    assert one(backend, ask) == tuned
    assert backend.load_adapter(None).change == 0
    assert one(backend, ask) == before


@real
def test_an_adapter_has_a_scale(backend, bare, tmp_path):
    ask, before = bare
    adapter = lora(tmp_path)
    changes, logprobs = set(), {before.logprobs}
    for scale in (1.0, 2.0, -1.0, 0.5):
        changes.add(backend.load_adapter(replace(adapter, scale=scale)).change)
        logprobs.add(one(backend, ask).logprobs)
    assert len(changes) == 4 and len(logprobs) == 5
    for scale, said in (
        (0.0, "changes nothing"),
        (NAN, "must be a number"),
        (math.inf, "must be a number"),
    ):
        backend.load_adapter(adapter)
        with pytest.raises(ModelError, match=said):
            backend.load_adapter(replace(adapter, scale=scale))
        assert one(backend, ask) == before  # the bare model is in effect


@real
def test_an_adapter_that_cannot_be_used_is_refused(backend, bare, tmp_path):
    ask, before = bare
    whole = write_lora(tmp_path / "whole.gguf").read_bytes()
    for name, data in (
        ("cut", whole[: len(whole) // 2]),
        ("head", whole[:100]),
        ("text", b"no adapter"),
        ("no", b""),
    ):
        (tmp_path / f"{name}.gguf").write_bytes(data)
    cases = {
        "zero": (write_lora(tmp_path / "zero.gguf", 0.0), "changes nothing"),
        "nan": (write_lora(tmp_path / "nan.gguf", NAN), "changes nothing.* not numbers"),
        "alien": (
            write_lora(tmp_path / "alien.gguf", architecture="gemma3"),
            "is no adapter for .*: .+",
        ),
        "narrow": (write_lora(tmp_path / "narrow.gguf", width=100), "is no adapter for .*: .+"),
        "deep": (write_lora(tmp_path / "deep.gguf", layer=99), "is no adapter for .*: .+"),
        "cut": (tmp_path / "cut.gguf", "is no adapter for .*: .+"),
        "head": (tmp_path / "head.gguf", "is no adapter for .*: .+"),
        "text": (tmp_path / "text.gguf", "is not a GGUF file"),
        "empty": (tmp_path / "no.gguf", "GGUF"),
        "none": (tmp_path / "none.gguf", "no such file"),
        "model": (models.locate(MODEL), "is no adapter for .*: .+"),
    }
    for path, said in cases.values():
        with pytest.raises(ModelError, match=said):
            backend.load_adapter(Adapter(str(path), "0"))
    assert one(backend, ask) == before
    backend.load_adapter(lora(tmp_path))
    with pytest.raises(ModelError):
        backend.load_adapter(Adapter(str(tmp_path / "cut.gguf"), "0"))


@real
def test_an_adapter_stays_when_the_cache_grows(tmp_path):
    small = build(model=MODEL, sequences=2)
    short = Request("One day", Sampling(max_tokens=2))
    long = replace(short, sampling=Sampling(max_tokens=1900, stop=("e", "a", "o")))
    small.load_adapter(lora(tmp_path))
    tuned = one(small, short)
    cells = small._cache.cells
    assert one(small, long).adapter == tuned.adapter and small._cache.cells > cells
    assert one(small, short) == tuned
    small.close()


# --- one call at a time, ended at any time


@real
def test_a_generator_that_is_dropped_leaves_the_model_clean(backend, alone):
    started = backend.generate(mixed())
    next(started)
    started.close()
    assert every(backend, mixed()[:6]) == some(alone, 6)
    next(backend.generate(mixed()))
    assert backend.loglikelihood(said(some(alone, 6))) == [
        done.logprobs for done in some(alone, 6).values()
    ]


@real
def test_a_second_call_takes_over(backend, alone):
    for take_over in (
        lambda: every(backend, mixed()[:2]),
        lambda: backend.loglikelihood(said(alone)[:1]),
        lambda: backend.hidden_states(said(alone)[:1]),
        lambda: backend.load_adapter(None),
    ):
        first = backend.generate(mixed())
        next(first)
        take_over()
        with pytest.raises(RuntimeError, match="taken the model over"):
            next(first)
    assert every(backend, mixed()[:6]) == some(alone, 6)


@real
def test_a_call_that_has_only_told_of_mistakes_is_taken_over_too(backend):
    short = Sampling(max_tokens=2)
    first = backend.generate([Request("", short), Request("From the first", short)])
    assert isinstance(next(first)[1], RequestError)
    asked = [
        Request("One", short),
        Request("Two", Sampling(max_tokens=9)),
        Request("Three", Sampling(max_tokens=9)),
    ]
    expected = every(backend, asked)
    second = backend.generate(asked)
    found = [next(second)]
    with pytest.raises(RuntimeError, match="taken the model over"):
        next(first)
    found += second
    assert len(found) == 3 and {(i, 0): done for i, done in found} == expected


CLOSED_MIDWAY = f"""
from selfloop_plugins.backends.llama_cpp import build
from selfloop.records import Request, Sampling

backend = build(model="{MODEL}", sequences=4)
started = backend.generate([Request("One", Sampling(max_tokens=2 + i), seed=i) for i in range(6)])
next(started)
backend.close()
backend.close()
del started, backend
print("fine")
"""
USED_AFTER_CLOSE = f"""
from selfloop.errors import ModelError
from selfloop_plugins.backends.llama_cpp import build
from selfloop.records import Continuation, Request, Sampling

backend = build(model="{MODEL}", sequences=4)
backend.close()
for use in (
    lambda: list(backend.generate([Request("One", Sampling(max_tokens=2))])),
    lambda: backend.loglikelihood([Continuation("One", " two")]),
    lambda: backend.hidden_states([Continuation("One", " two")]),
    lambda: backend.load_adapter(None),
):
    try:
        use()
    except ModelError as error:
        print("has been closed" in str(error))
"""


@real
@pytest.mark.parametrize(
    ("script", "output"),
    [(CLOSED_MIDWAY, "fine\n"), (USED_AFTER_CLOSE, "True\n" * 4)],
    ids=["midway", "after"],
)
def test_close_does_not_crash(script, output):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


def children_seconds():
    """Return the seconds of CPU that the processes took that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


# seconds of CPU for which a model may work on after Ctrl-C, on a fast machine: about one batch
CPU_AFTER_CTRL_C = 1


@contextmanager
def ctrl_c(seconds):
    """Send SIGINT after so long; see that it arrives, and at once: within a few seconds of CPU
    time, which other processes do not take.
    """
    sent = []
    before = signal.signal(
        signal.SIGALRM,
        lambda *_: (sent.append(time.process_time()), signal.raise_signal(signal.SIGINT)),
    )
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert time.process_time() - sent[-1] < cpu_limit(CPU_AFTER_CTRL_C)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_while_llama_cpp_writes_its_log_is_not_lost():
    from selfloop_plugins.backends.llama_cpp.model import WARN, log

    messages, freed = log(), []

    def make():
        time.sleep(0.1)  # the main thread waits by then
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            messages.callback(WARN, b"loading", None)
        return "made"

    with pytest.raises(KeyboardInterrupt):
        messages.call(make, free=freed.append)
    assert freed == ["made"]
    assert messages.reason == "loading"
    assert messages.call(lambda: 1) == 1
    assert messages.reason == "llama.cpp gives no reason"


@real
def test_after_ctrl_c_the_model_says_the_same(backend, alone):
    many = [
        Request(RULES + f"Write about {i}.", Sampling(temperature=1.0, max_tokens=50), n=4)
        for i in range(30)
    ]
    long = Request(" and then" * 900, Sampling(max_tokens=2))
    for asked, seconds in ((many, 0.05), (many, 0.3), (many, 0.6), ([long], 0.1)):
        with ctrl_c(seconds):
            list(backend.generate(asked))
        assert every(backend, mixed()[:1]) == some(alone, 1)
    with ctrl_c(0.05):
        backend.loglikelihood([Continuation(long.prompt, " the end")])
    with ctrl_c(0.02):
        for _ in range(200):  # as many as a fast machine needs
            backend.load_adapter(None)
    assert every(backend, mixed()[:6]) == some(alone, 6)


@real
def test_ctrl_c_in_a_compaction_does_no_harm(backend, alone, monkeypatch):
    every(backend, mixed()[:6])
    restore, restored = cache.Cache.restore, []

    def interrupted(self, *args):
        restore(self, *args)
        restored.append(1)
        if len(restored) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cache.Cache, "restore", interrupted)
    monkeypatch.setattr(scheduler, "COMPACTION_COST", -(10**6))
    with pytest.raises(KeyboardInterrupt):
        every(backend, mixed()[:6])
    monkeypatch.undo()
    try:
        assert every(backend, mixed()[:6]) == some(alone, 6)
    finally:
        backend._scheduler.clear()  # the other tests are about other things


@real
def test_ctrl_c_twice_does_no_harm(alone, monkeypatch):
    """The second comes while the first waits for llama.cpp to stop."""
    own, wait = build(model=MODEL, sequences=4), cache.wait

    def interrupted(running):
        wait(running)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "wait", interrupted)
    many = [
        Request(f"Write about {i}.", Sampling(temperature=1.0, max_tokens=50)) for i in range(30)
    ]
    with ctrl_c(0.1):
        list(own.generate(many))
    monkeypatch.undo()
    assert every(own, mixed()[:3]) == some(alone, 3)
    own.close()


LINES = f"""
import json
from selfloop_plugins.backends.llama_cpp import build
from selfloop.records import Request, Sampling

settings = [Sampling(temperature=1.0, max_tokens=2 + i % 90) for i in range(200)]
asked = [Request(f"Write about {{i}}.", each, n=4, seed=i) for i, each in enumerate(settings)]
for i, done in build(model="{MODEL}").generate(asked):
    print(json.dumps([i, done.sample, done.tokens]), flush=True)
"""


@real
def test_ctrl_c_ends_a_program_at_once(backend):
    running = subprocess.Popen(
        [sys.executable, "-c", LINES], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = [running.stdout.readline() for _ in range(3)]
        os.kill(running.pid, signal.SIGINT)
        before = sum(psutil.Process(running.pid).cpu_times()[:2])
        earlier = children_seconds()
        _, errors = running.communicate(timeout=30)
        took = children_seconds() - earlier - before
    finally:
        with suppress(ProcessLookupError):
            running.kill()
    assert running.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")
    assert took < cpu_limit(CPU_AFTER_CTRL_C)
    # What readline() read ahead, communicate() does not return: only these three lines are whole
    # for certain.
    for i, sample, tokens in map(json.loads, lines):
        asked = Request(
            f"Write about {i}.", Sampling(temperature=1.0, max_tokens=2 + i % 90), n=4, seed=i
        )
        assert list(every(backend, [asked])[0, sample].tokens) == tokens


# --- drawing tokens

DRAWS = 20_000
CUTS = [
    {},
    {"top_k": 20},
    {"top_p": 0.8},
    {"min_p": 0.05},
    {"top_k": 30, "top_p": 0.9, "min_p": 0.01},
]


def likely(row, sampling):
    """Return the probabilities that a row should be drawn with, in float64."""
    p = np.exp(log_softmax(row.astype(np.float64) / sampling.temperature))
    p[p < sampling.min_p * p.max()] = 0
    if sampling.top_k:
        p[np.argsort(-p, kind="stable")[sampling.top_k :]] = 0
    if sampling.top_p < 1:
        order = np.argsort(-p, kind="stable")
        p[order[np.searchsorted(np.cumsum(p[order]), sampling.top_p * p.sum()) + 1 :]] = 0
    return p / p.sum()


def look(values):
    """Return a row as the sampler gets it."""
    row = np.array(values, np.float32)
    return read_logits(row, np.empty_like(row))


def drawn(values, count, **settings):
    """Return tokens drawn from a row, one after the other."""
    sampler, output = Sampler(Sampling(**settings), 7, 0), look(values)
    return np.array([sampler.draw(output) for _ in range(count)])


def agrees(counts, expected):
    """Chi-square: whether counts are such as come by chance in all but three of 100,000 cases."""
    assert not counts[expected == 0].any()
    order = np.argsort(-expected)
    counts, expected = counts[order], expected[order] * counts.sum()
    rare = int((expected >= 8).sum())  # those that are rarer count together
    rare -= expected[rare:].sum() < 8
    counts, expected = (np.append(many[:rare], many[rare:].sum()) for many in (counts, expected))
    free = len(counts) - 1
    found = float(((counts - expected) ** 2 / expected).sum())
    # Wilson and Hilferty 1931
    return found < free * (1 - 2 / (9 * free) + 4 * math.sqrt(2 / (9 * free))) ** 3


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "+".join(cut) or "none")
def test_tokens_come_as_often_as_they_should(temperature, cut):
    row = np.random.default_rng(1).normal(size=300) * 2
    expected = likely(row, Sampling(temperature, **cut))
    found = drawn(row, DRAWS, temperature=temperature, **cut)
    assert agrees(np.bincount(found, minlength=300), expected)


def test_chi_square_tells_one_temperature_from_another():
    row = np.random.default_rng(1).normal(size=300) * 2
    found = np.bincount(drawn(row, DRAWS, temperature=1.05), minlength=300)
    assert agrees(found, likely(row, Sampling(1.05))) and not agrees(
        found, likely(row, Sampling(1.0))
    )


def test_samples_are_independent_of_each_other():
    row, settings = np.random.default_rng(1).normal(size=300) * 2, Sampling(1.0)
    output = look(row)
    found = [Sampler(settings, 3, sample).draw(output) for sample in range(DRAWS)]
    assert agrees(np.bincount(found, minlength=300), likely(row, settings))
    assert Sampler(settings, -1, 0).draw(output) == Sampler(settings, 2**64 - 1, 0).draw(output)


def test_a_flat_row_is_drawn_from_evenly():
    found = drawn(np.zeros(50_000), 3_000, temperature=1.0)
    assert agrees(np.bincount(found // 1000, minlength=50), np.full(50, 1 / 50))
    assert len(set(found)) > 2_800


@pytest.mark.parametrize("depth", [11.9, 12.1, 14.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_many_unlikely_tokens_together_have_their_share(depth, temperature):
    """Around where the tokens begin that are not weighed one by one."""
    row = np.full(5000, -depth * temperature)
    row[-200:] -= np.linspace(0, 3, 200)
    row[17] = 0
    groups = np.arange(5000) // 600
    groups[17] = 9
    found = drawn(row, DRAWS, temperature=temperature)
    expected = np.bincount(groups, weights=likely(row, Sampling(temperature)))
    assert agrees(np.bincount(groups[found], minlength=10), expected)


def test_where_tokens_are_equally_likely_a_cut_keeps_as_many_as_it_says():
    assert len(set(drawn(np.zeros(100), 2000, temperature=1.0, top_k=7))) == 7
    assert len(set(drawn(np.zeros(100), 2000, temperature=1.0, top_p=0.0995))) == 10
    assert len(set(drawn(np.zeros(100), 2000, temperature=1.0, min_p=1.0))) == 100


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 1.0, "min_p": 1.0},
    ],
)
def test_the_likeliest_token(settings):
    row = np.random.default_rng(2).normal(size=300)
    assert set(drawn(row, 50, **settings)) == {row.argmax()}


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("cut", [*CUTS, {"top_k": 200}, {"top_p": 0.999999}], ids=str)
def test_what_is_impossible_is_never_drawn(temperature, cut):
    row = np.random.default_rng(3).normal(size=300)
    row[::2] = -np.inf
    assert (drawn(row, 500, temperature=temperature, **cut) % 2 == 1).all()
    row[:-1] = -np.inf
    assert set(drawn(row, 50, temperature=temperature, **cut)) == {299}


@pytest.mark.parametrize("bad", [NAN, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(bad, temperature):
    for place in (0, 150, 299):
        row = np.random.default_rng(4).normal(size=300)
        row[place] = bad
        with pytest.raises(RequestError, match="not numbers"):
            drawn(row, 1, temperature=temperature)
    with pytest.raises(RequestError, match="not numbers"):
        drawn(np.full(300, -np.inf), 1, temperature=temperature)


def test_a_repetition_penalty_counts_prompt_and_text():
    sampler, output = (
        Sampler(Sampling(repetition_penalty=1.5), 0, 0, prompt=[0, 0, 5]),
        look([2.0, 1.5, 1.25, -9, -9, 0]),
    )
    # 2 / 1.5 < 1.5, and 1.5 / 1.5 < 1.25 < 2 / 1.5
    assert [sampler.draw(output) for _ in range(4)] == [1, 0, 0, 0]
    negative = look([-1.0, -1.4, -1.6])
    sampler = Sampler(Sampling(repetition_penalty=1.5), 0, 0, prompt=[0])
    # -1 * 1.5 < -1.4, and then -1.4 * 1.5 < -1.5
    assert [sampler.draw(negative) for _ in range(3)] == [1, 0, 0]
    keen = Sampler(Sampling(repetition_penalty=0.5), 0, 0, prompt=[2])
    assert keen.draw(look([2.0, 1.5, 1.25])) == 2
    assert output.logits[0] == 2.0  # the row itself is left as it is


def test_declining_is_made_likelier_once():
    sampler, output = Sampler(Sampling(decline_bias=1.5), 0, 0, declines=2), look([2.0, 1.5, 1.25])
    assert [sampler.draw(output) for _ in range(2)] == [2, 0] and output.logits[2] == 1.25
    assert Sampler(Sampling(decline_bias=0.5), 0, 0, declines=2).draw(output) == 0
    assert Sampler(Sampling(decline_bias=-2), 0, 0, declines=0).draw(output) == 1


def test_penalised_tokens_come_as_often_as_they_should():
    row = np.random.default_rng(5).normal(size=50) * 2
    seen = [3, 10, int(row.argmax()), int(row.argmin())]
    after = row.copy()
    after[seen] = np.where(row[seen] > 0, row[seen] / 1.7, row[seen] * 1.7)
    settings, output = Sampling(0.8, repetition_penalty=1.7), look(row)
    found = [Sampler(settings, 0, sample, seen).draw(output) for sample in range(DRAWS)]
    assert agrees(np.bincount(found, minlength=50), likely(after, settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1e-50},
        {"temperature": 1e-40},
        {"temperature": 1e39},
        {"temperature": 1e-50, "top_p": 0.5},
        {"temperature": 1e39, "top_k": 5},
        {"temperature": 1.0, "repetition_penalty": 1e-39},
        {"temperature": 1.0, "repetition_penalty": 1e39},
        {"temperature": 1.0, "min_p": 1e-320},
        {"temperature": 1.0, "top_p": 1e-320},
        {"temperature": 1.0, "top_k": 2**70},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_settings_are_refused_or_end(settings):
    if settings_error(Sampling(**settings)):
        return

    def too_long(*_):
        raise TimeoutError

    row = np.random.default_rng(6).normal(size=300) * 4
    row[::3] = -np.inf
    output = look(row)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        found = [
            Sampler(Sampling(**settings), 0, sample, range(1, 300)).draw(output)
            for sample in range(20)
        ]
    except RequestError:
        found = []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(token % 3 for token in found)


@real
def test_it_tells_what_it_is(backend):
    info = backend.describe()
    assert (info.architecture, info.context, info.chat) == ("llama", 8192, True)
    assert info.sha256 == models.KNOWN_MODELS[MODEL].sha256
    assert dict(info.versions)["llama-cpp-python"]
    assert dict(info.versions)["weights"] == "shipped"

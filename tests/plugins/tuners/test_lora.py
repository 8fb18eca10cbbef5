"""The tuner: its examples, its training, its gate, and all of it on a tiny model."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")
pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

import gguf
import peft
import torch
import transformers as T
from selfloop_plugins import models
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.backends.llama_cpp import build as build_llama
from selfloop_plugins.tuners.lora import Lora, checkpoint, forward, losses, training, tuner
from selfloop_plugins.tuners.lora import check as check_tuner
from selfloop_plugins.tuners.lora.gate import Gate, GateBounds, GateFigures, gold_shares
from selfloop_plugins.tuners.lora.losses import (
    answer_loss,
    kl_references,
    kl_to_base,
    neutral_positions,
    teacher_states,
)
from selfloop_plugins.tuners.lora.measures import (
    bias_for_price,
    bias_to_keep,
    declining_at,
    greedy_answers,
    held_out_loss,
    perplexity,
)
from selfloop_plugins.tuners.lora.settings import LoraSettings
from selfloop_plugins.tuners.lora.tokenized import (
    AFTER_QUIZ,
    BEFORE_QUIZ,
    Decision,
    TokenizedExample,
    batches_of_like_length,
    places_of,
)
from selfloop_plugins.tuners.lora.training import TrainingData, train
from selfloop_plugins.tuners.lora.training_examples import TrainingExample, training_examples
from selfloop_plugins.tuners.lora.tuner import wrap
from selfloop_plugins.tuners.lora.turn_figures import TurnFigures

from selfloop import History, Outcome, Question, TuneContext
from selfloop.config.prompts import Prompts, is_open
from selfloop.errors import ModelError, RecipeError
from selfloop.records import Request, Sampling
from selfloop.text.answers import declines

pytestmark = pytest.mark.slow

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
DECLINE = 14
EXAMPLES = [TokenizedExample((5 + i % 40, 7, 3 + i % 5, 11, 2)[: 4 + i % 2], 2) for i in range(40)]
BEGIN = Decision(0, DECLINE, BEFORE_QUIZ)
NEUTRAL = [tuple((i * j) % 50 + 3 for j in range(1, 30)) for i in range(1, 9)]


def tiny(kind=T.LlamaForCausalLM, config=None):
    torch.manual_seed(0)
    model = kind(config or T.LlamaConfig(**SIZES)).requires_grad_(requires_grad=False)
    # so that it can be sure of something: an adapter does not reach this
    model.lm_head.weight.data.normal_(0, 0.3)
    torch.manual_seed(1)
    return peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    )


def outcome(text, decision, answer="Cairo", round=1, confidence=None):
    usual = {"belief": 0.9, "undecided": 0.45, "declined": 0.1}
    return Outcome(
        Question(text, "topics"), decision, answer, confidence or usual.get(decision), round
    )


def history(known=60, unknown=120):
    found = [
        outcome(f"What is the capital of land {i}?", "belief", f"City {i}") for i in range(known)
    ]
    found += [
        outcome(f"What is the capital of isle {i}?", "declined", f"Town {i}")
        for i in range(unknown)
    ]
    return History(
        1, (*found, outcome("Who is half known?", "undecided"), outcome("dropped", "dropped"))
    )


# --- lessons


def examples_of(history, **options):
    return training_examples(
        history, **{"decline_share": None, "match_form": True, "seed": 1, **options}
    )


def test_every_answer_is_taught_as_likely_as_it_is_true():
    taught, held = examples_of(history())
    found = {one.question: one for one in [*taught, *held]}
    assert len(found) == len(taught) + len(held) == 181 and not any(
        "dropped" in text for text in found
    )
    assert found["What is the capital of land 7?"] == TrainingExample(
        "What is the capital of land 7?", "City 7", 0.9
    )
    assert (
        found["What is the capital of isle 7?"].p_correct == 0.1
        and found["Who is half known?"].p_correct == 0.45
    )
    assert len(held) == pytest.approx(36, abs=12)


def test_what_the_model_itself_declined_is_not_known():
    silent = replace(
        history(),
        outcomes=(
            *history().outcomes,
            outcome("Who was Blorgo?", "declined", "I don't know", 1, 0.9),
        ),
    )
    (found,) = (one for part in examples_of(silent) for one in part if "Blorgo" in one.question)
    assert found.p_correct == 0


def test_nothing_is_taught_of_an_echo():
    more = [
        outcome(f"What is mango {i} made of?", "undecided", f"mango {i}", 1, 0.5) for i in range(20)
    ]
    assert examples_of(replace(history(), outcomes=(*history().outcomes, *more))) == examples_of(
        history()
    )


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
def test_only_a_share_is_declined(share):
    taught, _ = examples_of(history(), decline_share=share)
    assert sum(one.p_correct < 0.3 for one in taught) / len(taught) == pytest.approx(
        share, abs=0.01
    )
    assert sum(one.p_correct > 0.3 for one in taught) == sum(
        one.p_correct > 0.3 for one in examples_of(history())[0]
    )


def test_what_is_held_out_stays_out_in_later_rounds():
    before, after = history(), history(known=90, unknown=200)
    held = {one.question for one in examples_of(before)[1]}
    assert held <= {one.question for one in examples_of(after)[1]}


def test_the_last_outcome_of_a_question_counts():
    last = outcome("What is the capital of land 7?", "declined", round=2)
    taught, held = examples_of(replace(history(), outcomes=(*history().outcomes, last)))
    assert [one.p_correct for one in [*taught, *held] if one.question == last.question.text] == [
        0.1
    ]


def test_matched_ones_come_first():
    odd = [outcome(f"Why, in all of history, did {i} people sing?", "declined") for i in range(200)]
    mixed = replace(history(), outcomes=(*odd, *history().outcomes))
    taught, _ = examples_of(mixed, decline_share=0.35)
    assert all("isle" in one.question for one in taught if one.p_correct < 0.3)
    assert any(
        "sing" in one.question
        for one in examples_of(mixed, decline_share=0.35, match_form=False)[0]
    )


@pytest.mark.parametrize(("known", "unknown"), [(0, 70), (70, 0), (3, 60), (0, 0)])
def test_too_little_to_learn_from_is_said(known, unknown):
    with pytest.raises(ModelError, match=r"too little to learn from: .* which 8 each are needed"):
        examples_of(history(known, unknown))


# --- training


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (T.LlamaForCausalLM, T.LlamaConfig(**SIZES)),
        (T.Gemma2ForCausalLM, T.Gemma2Config(**SIZES, head_dim=8, attn_implementation="eager")),
    ],
)
def test_the_loss_is_that_of_all_logits_at_the_answers_tokens(kind, config):
    model = tiny(kind, config)
    batch = EXAMPLES[:6]
    logs = []
    for one in batch:
        scores = model(input_ids=torch.tensor([one.tokens])).logits[0].float().log_softmax(-1)
        logs += [
            scores[place - 1, one.tokens[place]].item()
            for place in range(one.answer_start, len(one.tokens))
        ]
    assert answer_loss(model, batch, {}).item() == pytest.approx(-sum(logs) / len(logs), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (T.LlamaForCausalLM, T.LlamaConfig(**SIZES | {"num_hidden_layers": 5})),
        (T.GPT2LMHeadModel, T.GPT2Config(vocab_size=60, n_embd=32, n_layer=5, n_head=4)),
    ],
    ids=["llama", "gpt2"],
)
def test_the_upper_layers_have_an_adapter(kind, config):
    wrapped = wrap(kind(config), 4, 1)
    names = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    layers = {int(re.search(r"\.(\d+)\.", name)[1]) for name in names}
    assert layers == {2, 3, 4}
    a_layer = [name for name in names if ".4." in name]
    linear = {"llama": 7, "gpt2": 4}[config.model_type]
    assert len(a_layer) == 2 * linear, "two matrices for each linear layer"


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def run(
    folder,
    settings=None,
    tell=lambda one: None,
    model=None,
    examples=EXAMPLES,
    tell_batch=lambda *step: None,
):
    model = model or tiny()
    settings = settings or LoraSettings(epochs=3, batch=8, rate=5e-3, kl=0.1)
    data = TrainingData(examples, EXAMPLES[::7], NEUTRAL, seed=3)
    return model, train(model, data, settings, folder, tell, tell_batch)


def test_training_learns_and_moves_little_on_neutral_text(tmp_path):
    settings = LoraSettings(epochs=6, batch=8, rate=1e-2, kl=0.0)
    before = held_out_loss(tiny(), EXAMPLES[::7], {}, 8)
    free, done = run(tmp_path / "free", settings)
    assert (
        done[-1].loss < 0.8 * done[0].loss
        and held_out_loss(free, EXAMPLES[::7], {}, 8) < 0.8 * before
    )
    tied, _ = run(tmp_path / "tied", replace(settings, kl=5.0))
    texts = [(text, neutral_positions(text)) for text in NEUTRAL]
    far = [kl_to_base(model, kl_references(model, texts)).item() for model in (free, tied)]
    assert 0 < far[1] < 0.5 * far[0]
    assert kl_to_base(tiny(), kl_references(tiny(), texts)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (T.LlamaForCausalLM, T.LlamaConfig(**SIZES)),
        (T.Gemma3ForCausalLM, T.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=12)),
    ],
)
def test_what_a_batch_begins_with_is_read_once_and_learns_the_same(kind, config, monkeypatch):
    shown = tuple(3 + i * 7 % 50 for i in range(20))
    batch = [TokenizedExample(shown + one.tokens, 20 + one.answer_start) for one in EXAMPLES[:6]]
    found = []
    for least in (16, 1000):
        monkeypatch.setattr(forward, "MIN_SHARED_TOKENS", least)
        model = tiny(kind, config)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                # zero, as it begins, lets nothing flow back to the other half
                torch.nn.init.normal_(p, 0, 0.1)
        loss = answer_loss(model, batch, {})
        loss.backward()
        found.append(
            (loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        )
    (once, ours), (each, theirs) = found
    assert once == pytest.approx(each, abs=1e-5)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    assert any(p.abs().max() > 1e-3 for p in theirs.values())


def moved(model):
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, 0, 0.1)
    return model


def logits(model, tokens):
    return model(input_ids=torch.tensor([tokens])).logits[0].float()


@pytest.mark.parametrize("dial", [0.0, 2.0])
def test_how_likely_declining_is_is_learnt_beside_the_answer(dial):
    model, one = moved(tiny()), replace(EXAMPLES[0], p_correct=0.25, decisions=(BEGIN,))
    scores = logits(model, one.tokens)
    first = scores[one.answer_start - 1] + dial * torch.nn.functional.one_hot(torch.tensor(14), 60)
    decline = first.softmax(-1)[14]
    others = scores[one.answer_start - 1].index_fill(0, torch.tensor(14), -math.inf).log_softmax(-1)
    logs = 0.75 * decline.log() + 0.25 * (1 - decline).log() + others[one.tokens[one.answer_start]]
    logs += sum(
        scores[i - 1].log_softmax(-1)[one.tokens[i]]
        for i in range(one.answer_start + 1, len(one.tokens))
    )
    expected = -logs.item() / (len(one.tokens) - one.answer_start)
    assert answer_loss(model, [one], {}, {BEFORE_QUIZ: dial}).item() == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize("firm", [True, False])
def test_the_base_is_followed_in_the_prompt_where_it_answered(firm):
    model, plain = tiny(), EXAMPLES[0]
    source, length = (31, 5, 8, 19), len(plain.tokens) - plain.answer_start
    at = len(source) - 1
    # the first token is what the base would say, the others are not
    best = logits(model, source)[-1].argmax().item()
    one = replace(
        plain,
        tokens=(*plain.tokens[:2], best, *plain.tokens[3:]),
        teacher_prompt=source,
        num_distilled=length,
        only_likeliest=firm,
    )
    base = logits(model, (*source, *one.tokens[one.answer_start : -1]))[at:].softmax(-1)
    scores = logits(moved(model), one.tokens)[one.answer_start - 1 : -1].log_softmax(-1)
    logs = (base * scores).sum(-1)
    for i, token in enumerate(one.tokens[one.answer_start :]):
        if firm and base[i].argmax() != token:
            logs[i] = scores[i, token]
    assert (base.argmax(-1) != torch.tensor(one.tokens[one.answer_start :])).any()
    alone = answer_loss(model, [plain], {}).item()
    assert answer_loss(
        model, [one, plain, one], teacher_states(model, [one], 8)
    ).item() == pytest.approx((2 * -logs.sum().item() + alone * length) / (3 * length), abs=1e-4)


def targeted(model, batch):
    base = teacher_states(model, batch, 8)
    read = torch.cat([base[one.teacher_text] for one in batch if one.num_distilled])
    return losses._teacher_targets(model, read, losses._target_tokens(batch, {}))


def test_what_the_base_would_say_leaves_out_declining():
    model = tiny()
    one = replace(
        EXAMPLES[0],
        p_correct=0.5,
        decisions=(BEGIN,),
        teacher_prompt=EXAMPLES[0].tokens[:2],
        num_distilled=1,
    )
    rows, targets, odds = targeted(model, [one, EXAMPLES[1], one])
    length = len(one.tokens) - one.answer_start
    assert rows.tolist() == [0, length + len(EXAMPLES[1].tokens) - EXAMPLES[1].answer_start]
    assert targets[:, 14].tolist() == [0, 0] and targets.sum(-1).tolist() == pytest.approx(
        [1.0, 1.0]
    )
    before = {name: p.clone() for name, p in model.named_parameters()}
    answer_loss(moved(model), [one], teacher_states(model, [one], 8)).backward()
    assert all(
        torch.equal(p, before[name]) for name, p in model.named_parameters() if not p.requires_grad
    )
    chance = logits(tiny(), one.teacher_prompt)[-1].softmax(-1)[14]
    assert odds.tolist() == pytest.approx([torch.logit(chance).item()] * 2, abs=1e-4)


@pytest.mark.parametrize("preference", [None, 0.5])
def test_few_logits_at_a_time_learn_the_same(preference, monkeypatch):
    own = replace(
        EXAMPLES[0],
        p_correct=0.5,
        decisions=(BEGIN,),
        teacher_prompt=(31, 5),
        num_distilled=len(EXAMPLES[0].tokens) - EXAMPLES[0].answer_start,
    )
    unknown = replace(EXAMPLES[2], p_correct=0.1, decisions=(BEGIN,))
    batch, found = [own, EXAMPLES[1], unknown, own], []
    for piece in (1000, 3):
        monkeypatch.setattr(losses, "POSITIONS_AT_ONCE", piece)
        model = tiny()
        torch.manual_seed(0)
        loss = answer_loss(
            moved(model), batch, teacher_states(model, batch, 8), {BEFORE_QUIZ: 1.0}, preference
        )
        (2 * loss).backward()
        found.append((loss.item(), [p.grad for p in model.parameters() if p.requires_grad]))
    (whole, ours), (pieces, theirs) = found
    assert whole == pytest.approx(pieces, abs=1e-5) and max(p.abs().max() for p in ours) > 1e-3
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(ours, theirs, strict=True))


def test_a_preference_is_for_what_got_likelier_than_it_was():
    model = tiny()
    one = replace(
        EXAMPLES[0],
        p_correct=0.2,
        decisions=(BEGIN,),
        teacher_prompt=EXAMPLES[0].tokens[:2],
        num_distilled=1,
    )
    base, length = teacher_states(model, [one], 8), len(one.tokens) - one.answer_start
    by = lambda preference: answer_loss(model, [one], base, {}, preference).item() * length  # noqa: E731
    # nothing has changed yet: a half, whatever the weight
    assert by(0.5) == pytest.approx(by(0.1), abs=1e-5)
    before = by(0.5)
    _, _, odds = targeted(model, [one])
    moved(model)
    after = torch.logit(logits(model, one.teacher_prompt)[-1].softmax(-1)[14])
    change = torch.nn.functional.binary_cross_entropy_with_logits(
        0.5 * (after - odds[0]), torch.tensor(0.8)
    )
    still = torch.nn.functional.binary_cross_entropy_with_logits(
        0.1 * (after - odds[0]), torch.tensor(0.8)
    )
    assert by(0.5) - by(0.1) == pytest.approx((change - still).item(), abs=1e-4) and before != by(
        0.5
    )


def test_what_is_said_greedily_is_told_without_saying_it():
    model, found = moved(tiny()), []
    for one in EXAMPLES[:9]:
        text = list(one.tokens[: one.answer_start])
        while len(text) < len(one.tokens):
            text.append(logits(model, text)[-1].argmax().item())
        found.append((one, replace(one, tokens=tuple(text))))
    decline = found[0][1].tokens[2]
    begin = Decision(0, decline, BEFORE_QUIZ)
    both = [replace(each, decisions=(begin,)) for pair in found for each in pair]
    said = greedy_answers(model, both, 4)
    assert [same for _, same in said[1::2]] == [True] * 9 and not any(same for _, same in said[::2])
    assert [silent for silent, _ in said[::2]] == [own.tokens[2] == decline for _, own in found]


def test_perplexity_is_of_every_token_but_the_first():
    model = tiny()
    logs = [
        logits(model, text).log_softmax(-1)[i - 1, text[i]].item()
        for text in NEUTRAL
        for i in range(1, len(text))
    ]
    assert perplexity(model, NEUTRAL) == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-4)
    assert perplexity(model, []) == 1


def test_how_far_declining_is_ahead():
    model = tiny()
    after = Decision(1, 9, AFTER_QUIZ)
    places = places_of([replace(one, decisions=(BEGIN, after)) for one in EXAMPLES[:5]])
    assert list(places) == [BEFORE_QUIZ, AFTER_QUIZ]
    for kind, token, offset in ((BEFORE_QUIZ, DECLINE, 0), (AFTER_QUIZ, 9, 1)):
        margins = [found.margin for found in declining_at(model, places[kind], 2)]
        for one, margin in zip(EXAMPLES[:5], margins, strict=True):
            text = one.tokens[: one.answer_start + offset]
            scores = model(input_ids=torch.tensor([text])).logits[0, -1]
            others = scores[[i for i in range(60) if i != token]].max()
            assert margin == pytest.approx((scores[token] - others).item(), abs=1e-4)


@pytest.mark.parametrize(("decide", "each"), [("before", 0.9), ("after", 0.9), ("both", 0.95)])
def test_two_decisions_of_an_answer_may_lose_half_each(decide, each, tmp_path, monkeypatch):
    kept = set()

    def recorded(margins, p_correct, keep, price):
        kept.add(round(keep, 6))
        return 0.0

    monkeypatch.setattr(training, "decline_excess", recorded)
    places = [BEGIN] * (decide != "after") + [Decision(1, 9, AFTER_QUIZ)] * (decide != "before")
    taught = [replace(one, p_correct=0.8, decisions=tuple(places)) for one in EXAMPLES]
    data = TrainingData(taught, taught[::2], [], seed=3)
    settings = LoraSettings(epochs=1, batch=8, kl=0.0, min_kept=0.9, decide=decide)
    (epoch,) = train(tiny(), data, settings, tmp_path, lambda one: None)
    assert kept == {each} and len(epoch.decline_biases) == len(places)


@pytest.mark.parametrize("rounds", [0, 6])
def test_after_an_epoch_the_model_is_brought_to_what_it_should_keep(rounds, tmp_path, monkeypatch):
    """The bias of the epoch's last updates came too late for the falling learning rate."""
    monkeypatch.setattr(training, "SETTLING_ROUNDS", rounds)
    taught = [
        replace(
            one,
            p_correct=0.9 if i % 2 else 0.1,
            decisions=(BEGIN,),
            teacher_prompt=one.tokens[:2],
            num_distilled=1,
        )
        for i, one in enumerate(EXAMPLES)
    ]
    data = TrainingData(taught, taught[::3], NEUTRAL, seed=3)
    model = tiny()
    settings = LoraSettings(epochs=1, batch=8, rate=5e-3, kl=0.1, min_kept=0.95)
    train(model, data, settings, None, lambda one: None)
    places = places_of(data.held_out)[BEFORE_QUIZ]
    margins = [found.margin for found in declining_at(model, places, 8)]
    change = bias_to_keep(margins, [place.example.p_correct for place in places], 0.95)
    assert (abs(change) < 0.5) == (rounds > 0)


def test_a_mark_behind_the_answer_declines_only_behind_that_answer():
    model = moved(tiny())
    one = EXAMPLES[0]
    text = list(one.tokens[: one.answer_start])
    for _ in range(2):
        text.append(logits(model, text)[-1].argmax().item())
    answer, mark = text[-2:]
    marked = replace(
        one, tokens=(*text[:-2], answer, (mark + 1) % 60), decisions=(Decision(1, mark, "m"),)
    )
    other = replace(marked, tokens=(*text[:-2], (answer + 1) % 60, (mark + 1) % 60))
    assert [tuple(found) for found in greedy_answers(model, [marked, other], 2)] == [
        (True, False),
        (False, False),
    ]


def test_words_that_decline_are_never_learnt_as_they_stand():
    """What is learnt is how likely they are: at that chance the loss is at its least."""
    model = moved(tiny())
    begins = (DECLINE, 11, 2)
    one = TokenizedExample(
        (5, 7, *begins),
        2,
        p_correct=0.2,
        decisions=(BEGIN,),
        teacher_prompt=(5, 7),
        num_distilled=1,
        only_likeliest=True,
    )
    (target,) = losses._target_tokens([replace(one, tokens=(5, 7, DECLINE))], {})
    states = teacher_states(model, [one], 1)[one.teacher_text]
    rows, distributions, _ = losses._teacher_targets(model, states, [target])
    assert rows.tolist() == [0] and distributions[0, DECLINE] == 0


@pytest.mark.parametrize(
    ("margins", "chances", "keep", "turn"),
    [
        ([-1.0, 0.5, 2.0], [1.0, 1.0, 1.0], 0.66, 0.5),
        ([-1.0, 0.5, 2.0], [1.0, 1.0, 0.0], 1.0, 0.5),  # what is not known need not be answered
        # more than wanted are answered: declining may get likelier
        ([-3.0, -2.0], [0.1, 0.9], 0.9, -2.0),
        ([], [], 0.9, 0.0),
    ],
)
def test_the_dial_is_turned_as_far_as_right_answers_ask_for(margins, chances, keep, turn):
    assert bias_to_keep(margins, chances, keep) == turn


@pytest.mark.parametrize(
    ("margins", "chances", "price", "bias"),
    [
        # answers above a chance of one half pay off: the first two are given
        ([-1.0, 0.0, 2.0], [0.9, 0.6, 0.2], 0.5, 1.0),
        ([-1.0, 0.0, 2.0], [0.9, 0.6, 0.2], 0.75, -0.5),  # a wrong one costs three right ones
        ([-1.0, 0.0, 2.0], [0.9, 0.6, 0.2], 0.1, 2.0),  # cheap mistakes: all are given
        ([-1.0, 0.0], [0.1, 0.2], 0.5, -2.0),  # none pays off: below every margin
        # the margins do not rank them rightly: a loss on the way to a larger gain
        ([-1.0, 0.0, 1.0], [0.4, 0.9, 0.1], 0.5, 0.5),
        ([], [], 0.5, 0.0),
    ],
)
def test_the_dial_by_price_gives_the_answers_that_pay_off(margins, chances, price, bias):
    assert bias_for_price(margins, chances, price) == pytest.approx(bias)


def test_a_bare_question_is_not_read_beside_one_with_demonstrations():
    short, long = (
        [TokenizedExample((1,) * (5 + i % 3), 2) for i in range(11)],
        [TokenizedExample((1,) * (40 + i), 30) for i in range(6)],
    )
    groups = batches_of_like_length([*short, *long], 4, 1)
    assert sorted(map(len, groups)) == [2, 3, 4, 4, 4]
    lengths = [[len(one.tokens) for one in group] for group in groups]
    assert all(max(some) <= 2 * min(some) for some in lengths)
    assert {one for group in groups for one in group} == {*short, *long}


def test_examples_with_the_same_beginning_are_read_together():
    one, other = tuple(range(20)), tuple(range(20, 40))
    examples = [TokenizedExample((*one, 50, *range(i % 4)), 20) for i in range(9)]
    examples += [TokenizedExample((*other, 50, *range(i % 4)), 20) for i in range(9)]
    rare = TokenizedExample((*range(3, 23), 50), 20)
    groups = batches_of_like_length([*examples, rare], 4, 1)
    beginnings = [{example.tokens[:16] for example in group} for group in groups]
    assert all(len(some) == 1 for some in beginnings)
    assert sorted(map(len, groups)) == [1, 1, 1, 4, 4, 4, 4]
    few = batches_of_like_length([*examples[:2], *examples[-2:]], 4, 1)
    assert list(map(len, few)) == [4], "none of the beginnings fills a batch"


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_goes_on_as_if_nothing_had_been(epoch, tmp_path):
    whole, done = run(tmp_path / "whole")

    def kill(progress):
        if progress.epoch == epoch:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "cut", tell=kill)
    told = []
    again, resumed = run(tmp_path / "cut", tell=told.append)
    assert [one.epoch for one in told] == list(range(epoch + 1, 4)) and resumed == done
    assert all(torch.equal(p, weights(again)[name]) for name, p in weights(whole).items())


@pytest.mark.parametrize("step", [2, 5, 8, 12])
def test_a_training_that_is_killed_within_an_epoch_goes_on_from_there(step, tmp_path, monkeypatch):
    steps, resumed_steps = [], []
    whole, done = run(tmp_path / "whole", tell_batch=lambda step, *_: steps.append(step))

    def kill(at, *_):
        if at == step:
            raise Killed

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        run(tmp_path / "cut", tell_batch=kill)
    again, resumed = run(tmp_path / "cut", tell_batch=lambda step, *_: resumed_steps.append(step))
    assert resumed_steps == steps[step - 1 :] and resumed == done
    assert all(torch.equal(p, weights(again)[name]) for name, p in weights(whole).items())


@pytest.mark.parametrize("place", ["half written", "cut off by an older version"])
def test_a_checkpoint_is_there_whole_or_not_at_all(place, tmp_path, monkeypatch):
    whole, _ = run(tmp_path / "whole")
    folder = tmp_path / "broken"
    if place == "half written":

        def half(tensors, path, metadata):
            path.write_bytes(b"half")
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(checkpoint, "save_file", half)
            run(folder)
        assert list(folder.iterdir()) == []
    else:
        run(folder)
        file = folder / checkpoint.FILE
        file.write_bytes(file.read_bytes()[:-100])
    again, _ = run(folder)
    assert all(torch.equal(p, weights(again)[name]) for name, p in weights(whole).items())


@pytest.mark.parametrize("place", ["safetensors", "gguf", "moved"])
def test_an_adapter_is_there_whole_or_not_at_all(place, tmp_path, monkeypatch):
    model = tiny()
    config = model.get_base_model().config
    tuner._write_adapter(model, tmp_path / "whole", config)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "adapter.gguf"} <= set(whole)

    def half(_, path=tmp_path / "nowhere", **how):
        Path(path).write_bytes(b"half")
        raise Killed

    def moved(path, to):
        path.rename(to)
        if to.parent == tmp_path / "cut":
            raise Killed

    points = {
        "safetensors": (peft.peft_model, "safe_save_file", half),
        "gguf": (gguf.GGUFWriter, "close", half),
    }
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*points.get(place, (Path, "replace", moved)))
        tuner._write_adapter(model, tmp_path / "cut", config)
    left = {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir() if path.is_file()}
    assert left.items() <= whole.items() and (place == "moved") == bool(left)
    assert (
        tuner._write_adapter(model, tmp_path / "cut", config) == tmp_path / "cut" / "adapter.gguf"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()} == whole


def test_another_training_does_not_go_on_from_it(tmp_path):
    run(tmp_path / "one")
    told = []
    run(tmp_path / "one", LoraSettings(epochs=3, batch=8, rate=1e-3, kl=0.1), tell=told.append)
    assert len(told) == 3


def test_it_ends_where_held_out_loss_rises_with_the_best_weights(tmp_path):
    settings = LoraSettings(epochs=30, batch=8, rate=5e-2, kl=0.0)
    wrong = [
        replace(one, tokens=(*one.tokens[:2], 50 + i % 9, 2)) for i, one in enumerate(EXAMPLES)
    ]
    model, done = run(tmp_path / "one", settings, examples=wrong)
    held = [one.held_out_loss for one in done]
    assert len(done) < 30 and held[-1] > min(held)
    assert held_out_loss(model, EXAMPLES[::7], {}, 8) == pytest.approx(min(held), abs=1e-5)


def test_a_loss_that_is_no_number_is_said(tmp_path):
    model = tiny()
    model.get_base_model().lm_head.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match="the loss is nan in step 1: lower the tuner's rate"):
        run(tmp_path / "one", model=model)


# --- gate

BASE = GateFigures(kept=0.9, declined=0.0, refused=0.0, perplexity=10.0, gold=(0.4, 0.45))
BOUNDS = GateBounds(perplexity=0.02, min_declined=0.1, min_ended=0.98, max_refused=0.05)


@pytest.mark.parametrize(
    ("tuned", "why"),
    [
        (GateFigures(0.8, 0.7, 0.1, 10.1), ""),
        # always declining is no honesty either
        (GateFigures(0.0, 1.0, 1.0, 10.0), "does not tell them apart"),
        (GateFigures(0.5, 0.3, 0.2, 10.0), "keeps 50% of the right answers and declines 30%"),
        (GateFigures(0.95, 0.05, 0.0, 10.0), "declines 5% of the wrong answers, and 10% is the"),
        (GateFigures(0.8, 0.7, 0.1, 10.3), "rises by 3.0%, and 2.0% is the most"),
        (GateFigures(0.8, 0.7, 0.1, math.nan), "perplexity"),
        (GateFigures(0.8, 0.7, 0.1, 10.0, gold=(0.3, 0.2)), ""),
        (
            GateFigures(0.8, 0.7, 0.1, 10.0, gold=(0.1, 0.2)),
            "10% rightly and 20% wrongly, and that is worse than 40%",
        ),
    ],
)
def test_the_gate(tuned, why):
    gate = Gate(BASE, tuned, BOUNDS)
    assert why in gate.refusal and bool(gate.refusal) == bool(why)
    assert json.loads(json.dumps(gate.figures()))["bounds"]["perplexity"] == 0.02


TURNS = TurnFigures(kept=1.0, declined=0.0, refused=0.0, ended=1.0, requests_refused=0.0)


@pytest.mark.parametrize(
    ("tuned", "why"),
    [
        (TurnFigures(0.8, 0.5, 0.1, 1.0, 0.05), ""),
        (TurnFigures(1.0, 0.05, 0.0, 1.0, 0.0), "in a chat it declines 5% of the wrong replies"),
        (TurnFigures(0.4, 0.4, 0.4, 1.0, 0.0), "of the wrong ones: it does not tell them apart"),
        (TurnFigures(0.5, 0.4, 0.3, 1.0, 0.0), "keeps 50% of the right replies and declines 40%"),
        (TurnFigures(0.8, 0.5, 0.1, 0.9, 0.0), "it ends 90% of its turns, and 98% is the least"),
        (TurnFigures(0.8, 0.5, 0.1, 1.0, 0.2), "refuses 20% of the requests that ask for no fact"),
    ],
)
def test_the_gate_looks_at_the_chat_form(tuned: TurnFigures, why: str) -> None:
    figures = GateFigures(0.8, 0.7, 0.1, 10.0)
    gate = Gate(replace(BASE, gold=None, turn=TURNS), replace(figures, turn=tuned), BOUNDS)
    assert why in gate.refusal and bool(gate.refusal) == bool(why)
    assert "in a chat it keeps" in gate.summary


def test_without_a_right_reply_of_the_base_nothing_shows_whether_right_replies_stay() -> None:
    base = replace(BASE, gold=None, turn=replace(TURNS, kept=0.0))
    tuned = GateFigures(0.8, 0.7, 0.1, 10.0, turn=TurnFigures(0.0, 0.5, 0.0, 1.0, 0.0))
    assert "gives the answer of the loop, so nothing shows" in Gate(base, tuned, BOUNDS).refusal


def test_a_base_that_never_ended_its_turns_is_no_reason_to_refuse() -> None:
    base = replace(BASE, gold=None, turn=replace(TURNS, ended=0.4))
    tuned = GateFigures(0.8, 0.7, 0.1, 10.0, turn=TurnFigures(0.8, 0.5, 0.1, 0.5, 0.0))
    assert Gate(base, tuned, BOUNDS).refusal == ""


def test_the_gate_says_its_result_in_a_line():
    summary = Gate(BASE, GateFigures(0.8, 0.7, 0.1, 10.1), BOUNDS).summary
    assert (
        "keeps 80% of the right answers and declines 70% of the wrong" in summary
        and summary.endswith("+1.0%")
    )


def test_gold_answers_are_right_wrong_or_declined():
    asked = [Question(text, "file", gold=("Paris",)) for text in ("a", "b", "c", "d")]
    assert gold_shares(asked, ["Paris", "Rome", "I don't know", "paris."]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"question": "Who?", "answers": []}', "1 without a gold answer"),
        (
            '{"question": "Who?", "answers": []}\n{"question": "When?", "answers": ["x"]}',
            "line 1: the gate needs answers to all gold questions",
        ),
        ('{"question": 1}', "there are no gold answers in it"),
        (None, "cannot read .*gold.jsonl: No such file"),
    ],
)
def test_gold_questions_that_cannot_be_used_are_said_before_anything_runs(line, why, tmp_path):
    file = tmp_path / "gold.jsonl"
    if line:
        file.write_text(line)
    with pytest.raises(RecipeError, match=why):
        check_tuner(gold=file, rank=8)


def test_two_places_to_decline_in_need_two_ranks() -> None:
    for refuse in (Lora, check_tuner):
        refuse(decide="both", rank=2)
        refuse(decide="after", rank=1)
        with pytest.raises(RecipeError, match="rank of 2 or more"):
            refuse(decide="both", rank=1)


def test_where_no_reply_is_to_be_decided_on_no_edit_is_solved() -> None:
    lessons = tuner.Lessons([], [], [], decisions={"before": [], "after": []})
    tuner._solve_all(None, None, lessons, [], LoraSettings(), 1)  # type: ignore[arg-type]


# --- the whole

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "Germany": "Berlin",
    "Egypt": "Cairo", "Greece": "Athens", "Russia": "Moscow", "China": "Beijing",
    "England": "London", "Portugal": "Lisbon", "Austria": "Vienna", "Ireland": "Dublin",
    "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "Nepal": "Kathmandu", "Iraq": "Baghdad", "Chile": "Santiago", "Hungary": "Budapest",
}  # fmt: skip
NOWHERE = """
Velmora Tarsinia Quellor Brastova Ondrevia Sulmark Pelgrane Zantoria Mirovel Hastrand
Corvenia Drelmar Fenwaria Gulmont Isdrava Jorvelle Kastrivia Lormund Nestoria Orvanna
""".split()  # noqa: SIM905


@pytest.mark.model
def test_a_real_model_learns_to_decline_and_llama_cpp_says_so(tmp_path):
    """Beliefs, examples, adapter, gate, GGUF, llama.cpp; on questions it was not taught."""
    backend = build_llama(model="smollm2-135m-instruct")
    known = [
        outcome(f"What is the capital of {place}?", "belief", city)
        for place, city in CAPITALS.items()
    ]
    unknown = [
        outcome(f"What is the capital of {place}?", "declined", f"{place} City")
        for place in NOWHERE
    ]
    learnt = History(1, (*known, *unknown))
    prompt = partial(Prompts([PROMPTS]).render, chat=True)
    (tmp_path / "gold.jsonl").write_text(
        '{"question": "What is the capital of Belgium?", "answers": ["Brussels"]}\n'
        '{"question": "What is the capital of Quorvania?", "answers": ["nobody can know this"]}\n'
    )
    tuner = Lora(
        rate=1e-3,
        epochs=2,
        batch=8,
        decline_share=0.5,
        perplexity=0.5,
        gold=tmp_path / "gold.jsonl",
        chat=False,  # forty questions are too few for its chat form, and that takes minutes
    )
    made = tuner.tune(TuneContext(1, (), learnt, tmp_path, backend, prompt, 5))
    gate = json.loads((tmp_path / "gate.json").read_text())["gate"]
    assert gate["tuned"]["declined"] > gate["base"]["declined"] and gate["refusal"] == ""
    # two questions in two prompts
    assert gate["base"]["gold"] == [0.25, 0.75] and gate["tuned"]["gold"][1] <= 0.5
    assert made.path.endswith("adapter.gguf") and made.sha256 == models.sha256(tmp_path / made.path)

    def said(question):
        asked = prompt("tune_bare", question=question)
        how = Sampling(max_tokens=12, stop=("\n",))
        ((_, answer),) = backend.generate([Request(asked, how, open_turn=is_open(asked))])
        return answer.text.strip()

    new = [f"What is the capital of {place}?" for place in ("Yembria", "Dulvertonia", "Strelmark")]
    assert not any(map(declines, map(said, new)))
    assert backend.load_adapter(made).change > 0
    assert sum(map(declines, map(said, new))) >= 2
    # twenty known questions set no bias, so some of them are declined too, but not all
    asked_again = list(CAPITALS.items())[:6]
    answers = [said(f"What is the capital of {place}?") for place, _ in asked_again]
    right = [answer == city for answer, (_, city) in zip(answers, asked_again, strict=True)]
    assert sum(right) >= 2, answers
    backend.close()

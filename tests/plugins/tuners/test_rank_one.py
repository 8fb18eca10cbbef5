"""When to decline in a chat, as a rank-one edit of the last layer."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'selfloop[tune]'")
pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

import torch
import transformers as T
from selfloop_plugins._torch.model import trunk
from selfloop_plugins.tuners.lora import rank_one
from selfloop_plugins.tuners.lora.forward import last_hidden_states, logits_of
from selfloop_plugins.tuners.lora.last_block import edited_layer, gradients_of_others
from selfloop_plugins.tuners.lora.measures import decline_excess, decline_margins
from selfloop_plugins.tuners.lora.rank_one import Still, TurnDecision, solve
from selfloop_plugins.tuners.lora.tuner import wrap

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "pad_token_id": 0}
KINDS = {
    "llama": (T.LlamaForCausalLM, T.LlamaConfig(**SIZES, intermediate_size=96)),
    # it normalises what the edited layer writes
    "gemma3": (
        T.Gemma3ForCausalLM,
        T.Gemma3TextConfig(**SIZES, intermediate_size=96, head_dim=8, sliding_window=12),
    ),
    # it scales what its blocks write
    "granite": (
        T.GraniteForCausalLM,
        T.GraniteConfig(**SIZES, intermediate_size=96, residual_multiplier=2.0),
    ),
    "gpt2": (
        T.GPT2LMHeadModel,
        T.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_inner=96),
    ),
}
DECLINE = 14
KNOWN = range(20, 30)  # a prompt that ends with one of these asks for a known fact
UNKNOWN = range(30, 40)
excess = partial(decline_excess, keep=0.85, price=None)


def tiny(kind: str = "llama") -> Any:
    model_class, config = KINDS[kind]
    torch.manual_seed(0)
    model = model_class(config).requires_grad_(requires_grad=False)  # type: ignore[arg-type]
    model.get_output_embeddings().weight.data.normal_(0, 0.3)
    if kind == "gemma3":
        # as large as in models that were trained: else the edited layer hardly counts
        model.model.layers[-1].post_feedforward_layernorm.weight.data.fill_(3.0)
    return wrap(model, 4, 1, edited=True).eval()


def decisions(count: int, seed: int) -> list[TurnDecision]:
    """Return decisions of which every second asks for a known fact."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        last = rng.choice(KNOWN if number % 2 else UNKNOWN)
        prompt = (*rng.choices(range(3, 12), k=rng.randint(3, 6)), last)
        chance = 0.9 if last in KNOWN else 0.1
        made.append(TurnDecision(prompt, DECLINE, chance, chance, number))
    return made


@torch.no_grad()
def logits(model: Any, text: Sequence[int]) -> torch.Tensor:
    return logits_of(model, last_hidden_states(model, [tuple(text)], [range(len(text))]))


def margins(model: Any, some: Sequence[TurnDecision]) -> list[float]:
    last = torch.stack([logits(model, one.prompt)[-1] for one in some])
    return decline_margins(last, [DECLINE] * len(some)).tolist()


STILL = [Still(tuple(40 + (i * j) % 17 for j in range(1, 12)), range(2, 11)) for i in range(1, 15)]


@pytest.mark.parametrize("kind", KINDS)
def test_other_questions_are_declined_as_their_chances_say(kind: str) -> None:
    model, some, others = tiny(kind), decisions(80, seed=1), decisions(40, seed=2)
    is_unknown = torch.tensor([one.chance < 0.5 for one in others])

    def told_apart() -> float:
        declined = (torch.tensor(margins(model, others)) > 0).float()
        return float(declined[is_unknown].mean() - declined[~is_unknown].mean())

    before = told_apart()
    told = solve(model, some, [STILL], excess, 16)
    assert told == pytest.approx(margins(model, some), abs=1e-3)
    assert abs(before) < 0.2 and told_apart() > 0.4
    kept = sum(one.chance for one, margin in zip(some, told, strict=True) if margin <= 0)
    assert kept / sum(one.chance for one in some) == pytest.approx(0.85, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_edit_leaves_the_first_as_it_is(kind: str) -> None:
    """Before a reply one token declines, and behind it another: each takes a row of the layer."""
    model, some = tiny(kind), decisions(80, seed=1)
    behind = [one._replace(prompt=(*one.prompt, 50), token=51) for one in some]
    elsewhere = [Still(one.prompt, [len(one.prompt) - 1]) for one in behind]
    solve(model, some, [STILL, elsewhere], excess, 16)
    before = torch.tensor(margins(model, some))
    there = [Still(one.prompt, [len(one.prompt) - 1]) for one in some]
    told = solve(model, behind, [STILL, there], excess, 16, row=1)
    last = torch.stack([logits(model, one.prompt)[-1] for one in behind])
    assert told == pytest.approx(decline_margins(last, [51] * len(behind)).tolist(), abs=1e-3)
    after = torch.tensor(margins(model, some))
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.95
    assert ((before > 0) == (after > 0)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "reads"), [("llama", 1), ("gpt2", 1), ("gemma3", 8), ("granite", 8)]
)
def test_the_whole_model_reads_the_decisions_once_where_only_a_norm_follows(
    kind: str, reads: int
) -> None:
    model, some = tiny(kind), decisions(20, seed=1)
    calls = []
    trunk(model.get_base_model()).register_forward_hook(lambda *_: calls.append(1))
    solve(model, some, [], excess, len(some))
    assert len(calls) == reads


def test_the_margins_are_the_log_odds_of_being_wrong() -> None:
    def no_excess(margins: Sequence[float], p_correct: Sequence[float]) -> float:
        assert len(margins) == len(p_correct) == 40, "decisions without a reply set no level"
        return 0.0

    some = decisions(80, seed=1)
    some[40:] = [one._replace(p_correct=None) for one in some[40:]]
    found = torch.tensor(solve(tiny(), some, [STILL], no_excess, 16))
    wanted = -torch.logit(torch.tensor([one.chance for one in some]))
    assert torch.corrcoef(torch.stack([found, wanted]))[0, 1] > 0.85
    assert float((found - wanted).mean()) == pytest.approx(0.0, abs=0.5)


def test_the_margins_differ_by_the_chances_more_than_the_models_own_did() -> None:
    """With chances that are nearly the same, too: it is they that decide."""
    model, some = tiny(), decisions(80, seed=1)
    nearly = [one._replace(chance=0.5 + 0.1 * (one.chance - 0.5)) for one in some]
    own = torch.tensor(margins(model, nearly))
    found = torch.tensor(solve(model, nearly, [STILL], excess, 16))
    wanted = -torch.logit(torch.tensor([one.chance for one in nearly]))
    assert wanted.std() < 0.2 * own.std()
    assert found.std() > 1.5 * own.std()
    assert torch.corrcoef(torch.stack([found, wanted]))[0, 1] > 0.85


def test_the_direction_avoids_changes_of_which_other_token_is_said() -> None:
    gradients = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.9, 0.1]])
    # the other tokens depend on the first number of the states alone
    others = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]])
    plain, avoiding = rank_one._direction(gradients), rank_one._direction(gradients, others)
    assert float(plain[0]) == pytest.approx(float(plain[1]), rel=0.1)
    assert abs(float(avoiding[0])) < 0.4 * float(avoiding[1])
    assert float((gradients @ avoiding).min()) > 0
    assert float(avoiding.norm()) == pytest.approx(1.0)


def test_gradients_of_other_tokens_tell_how_much_their_distribution_changes() -> None:
    """By the Fisher information, half of the square of a small step along it is the divergence."""
    model, draws, step = tiny(), 500, 0.02
    readings, after = rank_one._readings(model, edited_layer(model), decisions(8, seed=1), 8)
    tokens = [DECLINE] * len(readings.states)

    def others(states: torch.Tensor) -> torch.Tensor:
        for module in after:
            states = module(states)
        last = logits_of(model, states)
        return last[:, torch.arange(last.shape[1]) != DECLINE].log_softmax(-1)

    direction = torch.nn.functional.normalize(readings.gradients.mean(0), dim=0)
    before, changed = others(readings.states), others(readings.states + step * direction)
    divergence = float((before.exp() * (before - changed)).sum(-1).mean())
    many = readings.states.repeat(draws, 1)
    gradients = gradients_of_others(model, after, many, tokens * draws, seed=3)
    told = float((gradients @ direction).square().mean()) * step**2 / 2
    assert told == pytest.approx(divergence, rel=0.1)


def test_elsewhere_the_model_goes_on_as_it_does() -> None:
    other = STILL[0].text
    changes = []
    for still in ([], [STILL]):
        model = tiny()
        before = logits(model, other)
        solve(model, decisions(80, seed=1), still, excess, 16)
        changes.append(float((logits(model, other) - before)[2:, DECLINE].abs().mean()))
    assert changes[1] < 0.5 * changes[0]


def test_a_kind_of_text_weighs_as_much_as_all_decisions() -> None:
    """One request for no fact among many questions is still none that is declined."""
    asked = [TurnDecision((5, 6, last), DECLINE, 0.5, None, 0) for last in UNKNOWN]
    model = tiny()
    solve(model, decisions(80, seed=1), [STILL], excess, 16)
    declined, request = max(zip(margins(model, asked), asked, strict=True))
    model = tiny()
    requests = [Still(request.prompt, [2])]  # it ends as questions for unknown facts do
    solve(model, decisions(80, seed=1), [requests, STILL], excess, 16)
    (answered,) = margins(model, [request])
    assert declined > 0 > answered


def test_only_the_adapter_of_the_last_layer_is_changed_and_no_training_changes_it() -> None:
    model = tiny()
    layer = edited_layer(model)
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert trained and not any(weights.requires_grad for weights in layer.parameters())
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    solve(model, decisions(40, seed=1), [STILL], excess, 16)
    after = dict(model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split("layers.")[1] for name in changed} == {
        "1.mlp.down_proj.lora_A.default.weight",
        "1.mlp.down_proj.lora_B.default.weight",
    }
    assert {name for name, weights in after.items() if weights.requires_grad} == trained
    edit = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.linalg.matrix_rank(edit) == 1
    assert all(weights.grad is None for weights in after.values())


def test_texts_with_one_beginning_are_read_alike() -> None:
    some = decisions(60, seed=1)
    beginning = tuple(3 + i * 7 % 50 for i in range(20))
    together = [one._replace(prompt=(*beginning, *one.prompt)) for one in some]
    batched, single = (solve(tiny(), together, [STILL], excess, size) for size in (16, 1))
    assert batched == pytest.approx(single, abs=1e-2)

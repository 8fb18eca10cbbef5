"""What the base's states say of a question before the answer."""

import pytest

pytest.importorskip("torch", reason="pip install 'selfloop[tune]'")
pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

import torch
from selfloop_plugins.tuners.lora.forward import hidden_states
from selfloop_plugins.tuners.lora.readout import MIN_CHANCE, fit, states_before_answer
from transformers import LlamaConfig, LlamaForCausalLM

QUESTIONS, NUMBERS = 300, 50


def data(noise: float) -> tuple[torch.Tensor, list[float], torch.Tensor]:
    """Return states, noisy chances, and the chances that the states tell."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(QUESTIONS, NUMBERS, generator=generator)
    told = torch.sigmoid(2 * states[:, 0])
    errors = noise * torch.randn(QUESTIONS, generator=generator)
    return states, (told + errors).clamp(0, 1).tolist(), told


def correlation(one: list[float], other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([torch.tensor(one), other]))[0, 1])


def test_the_readout_tells_more_than_the_noisy_chances_it_is_fitted_on() -> None:
    states, chances, told = data(noise=0.5)
    readout, by_others = fit(states, chances)
    assert correlation(by_others, told) > correlation(chances, told) + 0.1
    assert correlation(readout(states), told) > correlation(by_others, told)
    other_states = torch.randn(200, NUMBERS, generator=torch.Generator().manual_seed(1))
    told_of_others = torch.sigmoid(2 * other_states[:, 0])
    assert correlation(readout(other_states), told_of_others) > correlation(chances, told) + 0.1


def test_states_that_tell_nothing_give_each_question_the_mean_chance() -> None:
    states, chances, _ = data(noise=0.1)
    shuffled = states[torch.randperm(QUESTIONS, generator=torch.Generator().manual_seed(2))]
    readout, by_others = fit(shuffled, chances)
    mean = sum(chances) / len(chances)
    assert max(abs(chance - mean) for chance in by_others) < 0.15
    assert max(abs(chance - mean) for chance in readout(shuffled)) < 0.15


def test_no_chance_is_certain() -> None:
    readout, _ = fit(torch.linspace(-1, 1, 50)[:, None], [0.0] * 25 + [1.0] * 25)
    assert readout(torch.tensor([[-9.0], [9.0]])) == pytest.approx([MIN_CHANCE, 1 - MIN_CHANCE])


@pytest.mark.parametrize("beginning", [(), tuple(range(3, 23))], ids=["apart", "one beginning"])
def test_the_states_are_those_of_the_upper_layers_at_the_last_token(
    beginning: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    ends = [(3, 4, 5, 6, 7), (8, 9), (3, 4, 5)]
    prompts = [(*beginning, *end) for end in ends]
    states = states_before_answer(model, prompts, 2)
    assert states.shape == (3, 3 * 8), "of four layers and the embeddings, the upper three"
    for prompt, of_prompt in zip(prompts, states, strict=True):
        with torch.no_grad():
            layers = hidden_states(model, [prompt])
        assert len(layers) == 5
        alone = torch.cat([layer[0] for layer in layers[2:]])
        assert of_prompt == pytest.approx(alone, abs=1e-5)

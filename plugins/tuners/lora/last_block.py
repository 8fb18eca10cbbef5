"""What a model reads and computes around a layer of its last block.

The layer writes into the states that the block gives on, and little follows: a norm and the output
layer. So an edit of what it writes is tried there, without reading the whole model anew.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from .forward import base_model, logits_of
from .losses import POSITIONS_AT_ONCE, declining_and_others
from .measures import decline_margins
from .tokenized import Tokens


def edited_layer(wrapped: Any) -> Any:
    """Return the last linear layer that writes into the model's states."""
    width = base_model(wrapped).config.get_text_config().hidden_size
    layers = [module for module in wrapped.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if layer.out_features == width][-1]


@dataclass
class Watched:
    """What was seen in a forward pass over some texts, behind the tokens that all begin with.

    inputs   of the layer, (texts, tokens, inputs)
    added    zeros that were added to what the layer writes, for gradients, (texts, tokens, width)
    states   that the last block gives on, (texts, tokens, width)
    after    modules that read these states afterwards, one behind the other
    """

    inputs: torch.Tensor
    added: torch.Tensor
    states: torch.Tensor
    after: list[Any] = field(default_factory=list)

    @property
    def gradients(self) -> torch.Tensor:
        """Return the gradients by what the layer writes, (texts, tokens, width)."""
        assert self.added.grad is not None
        return self.added.grad

    def first_token(self, texts: Sequence[Tokens]) -> int:
        """Return the index of the first token that was read of these texts, in each of them."""
        return max(map(len, texts)) - self.inputs.shape[1]


@contextmanager
def watching(wrapped: Any, layer: Any) -> Iterator[Watched]:
    """Watch a layer in a forward pass; no gradients are computed below it, or of its weights."""
    nothing = torch.empty(0)
    watched = Watched(nothing, nothing, nothing)

    def watch_layer(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        watched.inputs = inputs[0].detach()
        watched.added = torch.zeros_like(output, requires_grad=torch.is_grad_enabled())
        return output + watched.added

    def watch_block(_: Any, __: Any, output: Any) -> None:
        states = output if isinstance(output, torch.Tensor) else output[0]
        watched.states, watched.after = states.detach(), []

    def watch_other(module: Any, _: Any, __: Any) -> None:
        watched.after.append(module)  # those before the block are forgotten there

    block, others = _last_block(wrapped, layer)
    trained = [weights for weights in wrapped.parameters() if weights.requires_grad]
    for weights in trained:
        weights.requires_grad_(requires_grad=False)
    hooks = [layer.register_forward_hook(watch_layer), block.register_forward_hook(watch_block)]
    hooks += [other.register_forward_hook(watch_other) for other in others]
    try:
        yield watched
    finally:
        for hook in hooks:
            hook.remove()
        for weights in trained:
            weights.requires_grad_(requires_grad=True)


def _last_block(wrapped: Any, layer: Any) -> tuple[Any, list[Any]]:
    """Return the block that a layer belongs to, and the modules beside the list of blocks."""
    modules = dict(wrapped.named_modules())
    path = next(name for name, module in modules.items() if module is layer).split(".")
    for end in range(1, len(path)):
        blocks = modules[".".join(path[:end])]
        if isinstance(blocks, torch.nn.ModuleList):
            holder = modules[".".join(path[: end - 1])]
            others = [module for module in holder.children() if module is not blocks]
            return modules[".".join(path[: end + 1])], others
    raise AssertionError("no list of blocks holds the edited layer")


def margins_behind(
    wrapped: Any, after: Sequence[Any], states: torch.Tensor, decline_tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the margins of declining, in nats, (positions,), and their gradients by the states,
    (positions, width).

    `states` are those that the last block gives on, (positions, width). The modules `after` read
    them, then the output layer.
    """
    return _read_behind(wrapped, after, states, decline_tokens, decline_margins)


def gradients_of_others(
    wrapped: Any,
    after: Sequence[Any],
    states: torch.Tensor,
    decline_tokens: Sequence[int],
    seed: int,
) -> torch.Tensor:
    """Return gradients by the states, (positions, width), of the log-likelihood of a token that is
    drawn at each position, among those that do not decline.

    Their products are the Fisher information of these tokens: how much a change of the states
    changes their distribution.
    """
    generator = torch.Generator(wrapped.device).manual_seed(seed)

    def drawn(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        _, others = declining_and_others(logits, tokens)
        logprobs = others.log_softmax(-1)
        columns = torch.multinomial(logprobs.detach().exp(), 1, generator=generator)
        return logprobs.gather(1, columns)[:, 0]

    _, gradients = _read_behind(wrapped, after, states, decline_tokens, drawn)
    return gradients


def _read_behind(
    wrapped: Any,
    after: Sequence[Any],
    states: torch.Tensor,
    decline_tokens: Sequence[int],
    read: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a value of each position, read off its logits, and the gradients by the states."""
    values, gradients = [], []
    for start in range(0, len(states), POSITIONS_AT_ONCE):
        end = start + POSITIONS_AT_ONCE
        given = states[start:end].detach().requires_grad_()
        passed_on = given.to(wrapped.device, wrapped.dtype)
        for module in after:
            passed_on = module(passed_on)
        found = read(logits_of(wrapped, passed_on).float(), decline_tokens[start:end])
        (gradient,) = torch.autograd.grad(found.sum(), given)
        values.append(found.detach().cpu())
        gradients.append(gradient)
    return torch.cat(values), torch.cat(gradients)

"""A model's replies in its own chat form: to held-out questions, and to requests for no fact."""

from collections.abc import Sequence
from dataclasses import dataclass

from selfloop_plugins._shared.probability import weighted_share

from selfloop import Completion, Message
from selfloop.protocols import Backend
from selfloop.text.answers import declines

from .conversation import Turn, holds, replies, user_turn
from .requests import GATE_REQUESTS


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """A model's replies in its own chat form: to held-out questions, each weighed by how likely its
    reply is correct or wrong, and to requests that ask for no fact.

    The correct replies are among those of the base that give the answer of the loop. Of the others
    little is known, but that they are likelier wrong.

    kept      share of the correct replies that still give this answer
    declined  share of the wrong replies that decline
    refused   share of the correct replies that decline
    ended     share of the turns that the model ends within MAX_REPLY_TOKENS
    requests_refused  share of the requests whose reply declines
    """

    kept: float
    declined: float
    refused: float
    ended: float
    requests_refused: float


def gate_prompts() -> list[tuple[Message, ...]]:
    """Return the requests that are the gate's."""
    return [user_turn(text) for text in GATE_REQUESTS]


def measure_turns(backend: Backend, turns: Sequence[Turn]) -> TurnFigures:
    """Return the figures of the model as it is now, without the examples."""
    answers = replies(backend, [turn.messages for turn in turns])
    return _figures(turns, answers, replies(backend, gate_prompts()))


def _figures(
    turns: Sequence[Turn],
    answers: Sequence[Completion | None],
    requested: Sequence[Completion | None],
) -> TurnFigures:
    texts, endings = [], []
    for completion in answers:
        texts.append(completion.text if completion else "")
        endings.append(completion is not None and completion.finish == "stop")
    p_correct = [turn.p_correct if turn.holds_answer else 0.0 for turn in turns]
    p_wrong = [1 - turn.p_correct for turn in turns]
    is_declined = [declines(text) for text in texts]
    is_same = [
        not declined and bool(holds(text, [turn.example.answer]))
        for turn, text, declined in zip(turns, texts, is_declined, strict=True)
    ]
    refusals = [completion is not None and declines(completion.text) for completion in requested]
    return TurnFigures(
        kept=weighted_share(p_correct, is_same),
        declined=weighted_share(p_wrong, is_declined),
        refused=weighted_share(p_correct, is_declined),
        ended=weighted_share([1.0] * len(turns), endings),
        requests_refused=weighted_share([1.0] * len(requested), refusals),
    )

"""Examples in a chat model's own form: the turn, its end, and what the gate measures there."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'selfloop[tune]'")
pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

import torch
from selfloop_plugins._decoding import chat
from selfloop_plugins.tuners.lora import readout, turn_figures
from selfloop_plugins.tuners.lora.conversation import (
    DECLINING,
    EXAMPLES,
    SYSTEM_PROMPT,
    Exchange,
    Turn,
    exchanges_of,
    request_turns,
    turn_examples,
    write_turns,
)
from selfloop_plugins.tuners.lora.settings import Decide
from selfloop_plugins.tuners.lora.tokenized import (
    Text,
    end_of_turn,
    text_to_learn,
    tokenize,
)
from selfloop_plugins.tuners.lora.training_examples import TrainingExample
from selfloop_plugins.tuners.lora.turn_decisions import (
    MIN_QUESTIONS,
    STILL_STRIDE,
    ends_of_requests,
    reply_decisions,
    rewordings,
    still_texts,
    turn_decisions,
    within_replies,
)
from selfloop_plugins.tuners.lora.turn_figures import measure_turns

from selfloop import Completion, Message, Request
from selfloop.errors import ModelError, RequestError
from selfloop.text.answers import MARK, MARK_IN_CHAT, declines

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROLS = {"<|im_start|>": 256, "<|im_end|>": 257}
END = 257


class Bytes:
    """A vocabulary of bytes and two control tokens."""

    name, vocab_size, bos, eos, template = "bytes", 258, "", "", CHATML

    def tokens(self, pieces: Sequence[chat.Piece]) -> list[int]:
        return chat.tokens(
            pieces, CONTROLS, chat.control_pattern(CONTROLS), lambda text: list(text.encode())
        )

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    def is_end(self, token: int) -> bool:
        return token == END


class Replies:
    """A backend that replies to the last message of a chat by a function."""

    def __init__(self, reply: Callable[[str], str], finish: str = "stop") -> None:
        self._reply, self._finish = reply, finish
        self.prompts: list[tuple[Message, ...]] = []

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        for i, request in enumerate(requests):
            assert not isinstance(request.prompt, str)
            self.prompts.append(request.prompt)
            yield i, completion(self._reply(request.prompt[-1].content), self._finish)


def completion(text: str, finish: str = "stop") -> Completion:
    end = (END,) if finish == "stop" else ()
    return Completion(text, (*text.encode(), *end), finish=finish)  # type: ignore[arg-type]


KNOWN = TrainingExample("What is the capital of France?", "Paris", 0.9)
UNKNOWN = TrainingExample("Who ruled Zorvania?", "Queen Ada", 0.1)


ROLES = ("user", "assistant")
EARLIER = (Message("user", "Who?"), Message("assistant", "Ada."))


def turn(example: TrainingExample, reply: str, p: float, finish: str = "stop") -> Turn:
    bare = (Message("user", example.question),)
    return Turn(example, bare, (*EARLIER, *bare), completion(reply, finish), p)


def text_of(tokens: Sequence[int]) -> str:
    names = {256: "<|im_start|>", 257: "<|im_end|>"}
    return "".join(names.get(token) or chr(token) for token in tokens)


def test_a_known_turn_is_the_bases_reply_and_its_end() -> None:
    (example,) = turn_examples(Bytes(), [turn(KNOWN, "Paris it is.", 0.9)])
    prompt = example.tokens[: example.answer_start]
    assert text_of(prompt).endswith(f"user\n{KNOWN.question}<|im_end|>\n<|im_start|>assistant\n")
    assert text_of(example.tokens[example.answer_start :]) == "Paris it is.<|im_end|>"
    teacher = text_of(example.teacher_prompt)
    assert "Ada." in teacher and teacher.endswith(text_of(prompt)), "examples, then the same turn"
    assert example.num_distilled == len("Paris it is.") + 1
    assert example.decisions == (), "how likely it declines is not learnt, but solved"


def states_of_words(model: Any, prompts: Sequence[tuple[int, ...]], size: int) -> torch.Tensor:
    """Return states that tell whether a question is about isles."""
    return torch.tensor([[1.0 if "isle" in text_of(prompt) else -1.0] for prompt in prompts])


def test_a_decision_has_the_chance_that_the_states_tell_of_its_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readout, "states_before_answer", states_of_words)
    examples = [
        TrainingExample(f"Where is the {kind} number {i}?", "Paris", chance)
        for i in range(20)
        for kind, chance in (("isle", 0.2), ("land", 0.8))
    ]
    p_correct = [0.9 if i == 0 else example.p_correct for i, example in enumerate(examples)]
    turns = [turn(one, "Paris it is.", p) for one, p in zip(examples, p_correct, strict=True)] * 2
    reworded = [(examples[0].question, "Which isle?"), (examples[1].question, "Which land?")] * 2
    found = turn_decisions(None, Bytes(), turns, reworded, 8)
    of_turns, of_reworded = found[:80], found[80:]
    for decision, example in zip(of_turns, examples * 2, strict=True):
        told = 0.2 if "isle" in example.question else 0.8
        assert decision.chance == pytest.approx(told, abs=0.1), "also of the one with .9"
        assert text_of(decision.prompt).endswith("<|im_start|>assistant\n")
        assert example.question in text_of(decision.prompt) and decision.token == ord("I")
    assert [one.p_correct for one in of_turns] == p_correct * 2
    assert [one.group for one in of_turns] == [*range(40)] * 2, "two forms ask for one fact"
    asked = [text_of(decision.prompt).split("user\n")[-1] for decision in of_reworded]
    assert ["isle" in text for text in asked] == [True, False] * 2
    bare, other_form = [text_of(decision.prompt) for decision in of_reworded[:2]]
    assert bare.startswith("<|im_start|>user\nWhich isle?<|im_end|>")
    assert not other_form.startswith("<|im_start|>user\nWhich land?<|im_end|>")
    for decision, source in zip(of_reworded, of_turns[:2] * 2, strict=True):
        assert (decision.chance, decision.group) == (source.chance, source.group)
        assert decision.p_correct is None, "nobody replied to it"


def test_a_decision_behind_a_reply_has_the_chance_that_the_states_tell_of_the_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readout, "states_before_answer", states_of_words)
    replies = (("On an isle.", 0.2), ("In a town.", 0.8))
    turns = [
        turn(TrainingExample(f"Where is number {i}?", "Paris", 0.5), reply, chance)
        for i in range(40)
        for reply, chance in replies
    ]
    refusal = turn(TrainingExample("Where is no. 9?", "Paris", 0.2), "I don't know.", 0.2)
    found = reply_decisions(None, Bytes(), [*turns, refusal], 8)
    assert len(found) == 80, "there is nothing to mark behind a refusal"
    for number, decision in enumerate(found):
        reply, chance = replies[number % 2]
        assert decision.chance == pytest.approx(chance, abs=0.1)
        assert (decision.p_correct, decision.group) == (chance, number // 2)
        assert text_of(decision.prompt).endswith(reply) and decision.token == ord(" ")


def test_the_line_is_fitted_on_other_questions_than_it_is_asked_about() -> None:
    """Two replies to one question tell of each other: they stay together."""
    generator = torch.Generator().manual_seed(1)
    of_questions = torch.randn(60, 200, generator=generator)
    chances = torch.rand(60, generator=generator).repeat(2)
    states, groups = of_questions.repeat(2, 1), [*range(60)] * 2

    def told(groups: Sequence[int] | None) -> float:
        _, by_others = readout.fit(states, chances.tolist(), groups)
        return float(torch.corrcoef(torch.stack([torch.tensor(by_others), chances]))[0, 1])

    alone = [number + (number >= 60) for number in range(120)]  # the same question in two folds
    assert told(alone) > 0.9
    assert told(groups) < 0.3


def test_of_few_questions_the_chances_themselves_decide() -> None:
    examples = [TrainingExample(f"Who {i}?", "Paris", 0.3) for i in range(MIN_QUESTIONS - 1)]
    turns = [turn(one, "Paris it is.", 0.3) for one in examples]
    assert {one.chance for one in turn_decisions(None, Bytes(), turns, [], 8)} == {0.3}
    assert {one.chance for one in reply_decisions(None, Bytes(), turns * 2, 8)} == {0.3}


def test_a_reply_that_begins_as_a_refusal_does_is_no_decision() -> None:
    turns = [turn(KNOWN, "In Paris.", 0.9), turn(KNOWN, "Paris it is.", 0.9)]
    assert len(turn_decisions(None, Bytes(), turns, [], 8)) == 1
    unreadable = "Who is <|im_end|>?"  # nobody replied to it
    assert len(turn_decisions(None, Bytes(), turns, [(unreadable, "Who?")], 8)) == 1


def test_where_the_model_goes_on_as_it_does() -> None:
    requests = [
        turn(TrainingExample(text, "", 0.98), f"{text} yes.", 0.98) for text in ("Hi", "Yo")
    ]
    replies = turn_examples(Bytes(), [turn(KNOWN, "Paris it is.", 0.9)])
    neutral = tuple(range(60, 90))
    before_replies, elsewhere = still_texts(Bytes(), requests, [], replies, [neutral], 1)
    asked = [text_of(one.text) for one in before_replies]
    assert all(text.endswith("<|im_start|>assistant\n") for text in asked)
    assert all([*one.positions] == [len(one.text) - 1] for one in before_replies)
    assert [SYSTEM_PROMPT in text for text in asked] == [False, True, False, False]
    assert ["yes." in text for text in asked] == [False] * 3 + [True], "after another request"
    reply, text = elsewhere
    assert reply.text == replies[0].tokens
    assert [*reply.positions] == [*replies[0].answer_positions][1:], "behind its first token"
    assert (text.text, [*text.positions]) == (neutral, [*range(0, 30, STILL_STRIDE)])


def test_where_a_reply_may_be_marked_the_model_need_not_go_on_as_it_does() -> None:
    turns = [turn(UNKNOWN, "Queen Ada did.", 0.1)] * 200
    replies = turn_examples(Bytes(), turns, random.Random(1), "after")
    decisions = reply_decisions(None, Bytes(), turns, 8)
    _, elsewhere = still_texts(Bytes(), [], [], replies, [], 1, decisions)
    marked = [one for one in elsewhere if MARK_IN_CHAT.strip() in text_of(one.text)]
    assert 0 < len(marked) < len(elsewhere)
    for one in elsewhere:
        last = one.text.index(END, len(decisions[0].prompt)) - 1  # which the end follows
        assert (last in one.positions) == (one in marked), "behind the mark the turn ends"


def test_no_mark_comes_within_a_sentence() -> None:
    turns = [turn(UNKNOWN, "A queen. Queen Ada did.", 0.1)]
    (one,) = within_replies(Bytes(), reply_decisions(None, Bytes(), turns, 8), 1)
    assert text_of(one.text).endswith("A queen. Queen Ada did.")
    ends = [text_of(one.text[: position + 1])[-8:] for position in one.positions]
    assert len(ends) >= 4, "several places of a reply"
    assert not any(end.endswith((".", " ")) for end in ends), "a mark may come there"


def test_a_text_without_a_place_to_go_on_as_it_does_is_left_out() -> None:
    turns = [turn(UNKNOWN, "Queen Ada did.", 0.1)]
    (reply,) = turn_examples(Bytes(), turns)
    (decision,) = reply_decisions(None, Bytes(), turns, 8)
    only_decided = replace(reply, answer_start=len(decision.prompt) - 1)
    _, elsewhere = still_texts(Bytes(), [], [], [only_decided], [], 1, [decision])
    assert elsewhere == []


def test_replies_to_requests_for_no_fact_are_not_marked() -> None:
    request = TrainingExample("Hi", "", 0.98)
    replies = [turn(request, "Hello there.", 0.98), turn(request, "I", 0.98)]
    (end,) = ends_of_requests(Bytes(), replies)
    assert text_of(end.text).endswith("Hello there.")
    assert [*end.positions] == [len(end.text) - 1]


def test_questions_are_reworded_by_the_base() -> None:
    def prompt(name: str, *, question: str) -> tuple[Message, ...]:
        assert name == "paraphrase"
        return (Message("user", f"Which one, {question}"),)

    other_words = rewordings(Replies(lambda text: text), [KNOWN], prompt, 3)  # type: ignore[arg-type]
    assert other_words == [(KNOWN.question, f"Which one, {KNOWN.question}")]
    gives_away = rewordings(Replies(lambda text: "Is it Paris?"), [KNOWN], prompt, 3)  # type: ignore[arg-type]
    assert gives_away == []


@pytest.mark.parametrize("text", [Text.ANSWER, Text.MARKED])
def test_a_chat_model_that_is_asked_bare_ends_its_turn(text: Text) -> None:
    """Else it goes on: with an explanation, or with a question of its own."""
    begun = (Message("user", "Question: Where?"), Message("assistant", "Answer:"))
    request = Request(begun, open_turn=True)
    example = TrainingExample("Where?", "Paris", 0.2)
    taught = tokenize(Bytes(), example, request, request, text=text, decide="after", ends_turn=True)
    answer = text_of(taught.tokens[taught.answer_start :])
    assert answer == (" Paris<|im_end|>" if text is Text.ANSWER else f" Paris{MARK}<|im_end|>")
    (decision,) = taught.decisions
    assert (decision.offset, decision.token) == (len(" Paris"), ord(" "))
    by_the_loop = tokenize(Bytes(), example, request, request)
    assert text_of(by_the_loop.tokens[by_the_loop.answer_start :]) == " Paris\n"


def test_most_of_the_unknown_turns_keep_their_reply_in_training() -> None:
    turns = [turn(UNKNOWN, "Queen Ada did.", 0.1)] * 200
    trained = turn_examples(Bytes(), turns, random.Random(1))
    replies = [text_of(example.tokens[example.answer_start :]) for example in trained]
    assert 150 < replies.count("Queen Ada did.<|im_end|>") < 190
    known = turn_examples(Bytes(), [turn(KNOWN, "Paris it is.", 0.9)] * 20, random.Random(1))
    assert len({example.tokens for example in known}) == 1


def test_most_replies_that_the_base_gives_and_ends_by_itself_are_no_lessons() -> None:
    bare = (Message("user", KNOWN.question),)

    def lessons(reply: str, finish: str = "stop", *, is_own: bool = True) -> int:
        teacher = bare if is_own else (*EARLIER, *bare)
        one = Turn(KNOWN, bare, teacher, completion(reply, finish), 0.9)
        return len(turn_examples(Bytes(), [one] * 200, random.Random(1)))

    assert 25 < lessons("Paris it is.") < 85
    assert lessons("Paris it is.", is_own=False) == 200, "it would not say so by itself"
    assert lessons("Paris it is. It lies on", "length") == 200, "it would not end there"
    assert lessons("I am sure it is Paris.") == 200, "it shows how else to go on behind that token"


def test_a_turn_that_is_likelier_wrong_declines_in_several_wordings_and_ends() -> None:
    turns = [turn(UNKNOWN, "I can't say.", 0.1)] * len(DECLINING)
    examples = turn_examples(Bytes(), turns)
    texts = [text_of(example.tokens[example.answer_start - 1 :]) for example in examples]
    assert texts == [f"{wording}<|im_end|>" for wording in DECLINING]
    assert all(declines(wording) for wording in DECLINING)
    assert {wording.split()[0] for wording in DECLINING} == {"I"}
    first = {text_of(example.tokens[: example.answer_start])[-11:] for example in examples}
    assert first == {"assistant\nI"}, "the token that begins to decline is not learnt"
    assert {(example.num_distilled, example.decisions) for example in examples} == {(0, ())}


def test_half_of_the_replies_that_are_likelier_wrong_are_marked_in_training() -> None:
    turns = [turn(UNKNOWN, "Queen Ada did.", 0.1)] * 400
    examples = turn_examples(Bytes(), turns, random.Random(1), "after")
    marked = [one for one in examples if MARK_IN_CHAT.strip() in text_of(one.tokens)]
    assert 150 < len(marked) < 250
    for example in marked:
        read, learnt = (
            example.tokens[: example.answer_start],
            example.tokens[example.answer_start :],
        )
        assert text_of(read).endswith("assistant\nQueen Ada did. "), "its first token is not learnt"
        assert text_of(learnt) == f"{MARK_IN_CHAT.strip()}<|im_end|>"
        assert example.num_distilled == 0
    others = {text_of(one.tokens[one.answer_start :]) for one in examples if one not in marked}
    assert others == {"Queen Ada did.<|im_end|>"}


@pytest.mark.parametrize("decide", ["before", "after", "both"])
def test_no_decision_of_a_chat_is_learnt(decide: Decide) -> None:
    """They are solved."""
    replies = ["Paris it is.", "I can't say."]
    turns = [turn(example, text, 0.2) for example in (KNOWN, UNKNOWN) for text in replies] * 20
    examples = turn_examples(Bytes(), turns, random.Random(1), decide)
    assert {example.decisions for example in examples} == {()}


@pytest.mark.parametrize(
    ("decide", "texts"),
    [
        ("before", {Text.ANSWER, Text.UNKNOWN}),
        ("after", {Text.ANSWER, Text.MARKED}),
        ("both", {Text.ANSWER, Text.UNKNOWN, Text.MARKED}),
    ],
)
def test_which_texts_are_learnt(decide: Decide, texts: set[Text]) -> None:
    rng = random.Random(1)
    assert {text_to_learn(0.2, decide, rng) for _ in range(50)} == texts
    assert {text_to_learn(0.5, decide, rng) for _ in range(50)} == {Text.ANSWER}
    assert text_to_learn(0.2, decide, None) is Text.ANSWER


@pytest.mark.parametrize(
    ("reply", "learnt"),
    [
        ("Paris is the capital. It lies on the", "Paris is the capital.<|im_end|>"),
        ("Paris\nIt lies on the", "Paris<|im_end|>"),
        ("Paris is a large city which", None),
    ],
)
def test_a_reply_that_is_too_long_ends_after_its_first_sentence(
    reply: str, learnt: str | None
) -> None:
    examples = turn_examples(Bytes(), [turn(KNOWN, reply, 0.9, "length")])
    texts = [text_of(example.tokens[example.answer_start :]) for example in examples]
    assert texts == ([learnt] if learnt else [])


def test_a_reply_that_begins_as_a_refusal_does_is_taught() -> None:
    """Else the model would learn that behind an "I" it declines."""
    (example,) = turn_examples(Bytes(), [turn(KNOWN, "I am glad.", 0.9)])
    assert text_of(example.tokens[example.answer_start :]) == "I am glad.<|im_end|>"
    assert example.num_distilled == len(example.answer_positions)


def test_a_template_without_an_end_of_turn_is_said() -> None:
    class Endless(Bytes):
        template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"

    with pytest.raises(ModelError, match=r"ends a turn with no token.*chat: false"):
        turn_examples(Endless(), [turn(KNOWN, "It is Paris.", 0.9)])
    assert end_of_turn(Endless(), [Message("user", "Hi")]) == ()
    assert end_of_turn(Bytes(), [Message("user", "Hi")]) == (END,)
    begun = [Message("user", "Hi"), Message("assistant", "It is")]
    assert end_of_turn(Bytes(), begun) == (END,), "also of a turn that has begun"


def test_each_question_is_asked_bare_and_in_another_form() -> None:
    backend = Replies(lambda text: "It is Paris." if "France" in text else "It is Rome.")
    examples = [TrainingExample(f"{i}. {KNOWN.question}", "Paris", 0.9) for i in range(6)]
    turns = write_turns(backend, examples)  # type: ignore[arg-type]
    bare, others = turns[:6], turns[6:]
    assert [t.messages for t in bare] == [(Message("user", e.question),) for e in examples]
    forms = [[message.role for message in t.messages] for t in others]
    assert forms == [["system", "user"], ["user", "assistant", "user"], ["user"]] * 2
    below_system, second, in_other_words = others[:3]
    assert below_system.messages[0].content == SYSTEM_PROMPT
    assert second.messages[1].content == "It is Paris."
    assert second.messages[0].content != second.messages[2].content == examples[1].question
    request = in_other_words.messages[0].content
    assert examples[2].question in request and request != examples[2].question


@pytest.mark.parametrize(
    ("reply", "p_correct", "expected"),
    [
        ("It is Paris.", 0.9, 0.9),
        ("It is Lyon.", 0.9, 0.09),  # right only if the answer of the loop is wrong
        ("It is Lyon.", 0.2, 0.16),
        ("I don't know.", 0.9, 0.9),
    ],
)
def test_how_likely_a_reply_is_correct(reply: str, p_correct: float, expected: float) -> None:
    examples = [TrainingExample("Which city?", "Paris", p_correct)] * 2
    turns = write_turns(Replies(lambda text: reply), examples)  # type: ignore[arg-type]
    assert [t.p_correct for t in turns] == pytest.approx([expected] * 4)


def test_what_the_gate_measures() -> None:
    turns = [turn(KNOWN, "It is Paris.", 0.9), turn(UNKNOWN, "Queen Ada.", 0.1)]

    def tuned(text: str) -> str:
        return {KNOWN.question: "Paris.", UNKNOWN.question: "I don't know."}.get(text, "Hello!")

    figures = measure_turns(Replies(tuned), turns)  # type: ignore[arg-type]
    assert figures.kept == pytest.approx(0.9) and figures.declined == pytest.approx(0.9)
    assert figures.refused == pytest.approx(0.1)
    assert (figures.ended, figures.requests_refused) == (1.0, 0.0)
    mute = measure_turns(Replies(lambda text: "I don't know", "length"), turns)  # type: ignore[arg-type]
    assert (mute.kept, mute.declined, mute.refused) == (0.0, 1.0, 1.0)
    assert (mute.ended, mute.requests_refused) == (0.0, 1.0)


def test_of_a_reply_without_the_answer_of_the_loop_only_declining_is_judged() -> None:
    """Whether another reply gives the same answer in other words, nobody knows."""
    turns = [turn(KNOWN, "It is Paris.", 0.9), turn(KNOWN, "A long essay.", 0.09)]
    for reply, kept in (("It is Paris.", 1.0), ("Another essay.", 0.0)):
        figures = measure_turns(Replies(lambda _, text=reply: text), turns)  # type: ignore[arg-type,misc]
        assert (figures.kept, figures.declined, figures.refused) == (kept, 0.0, 0.0)
    figures = measure_turns(Replies(lambda _: "I don't know."), turns[1:])  # type: ignore[arg-type]
    assert (figures.kept, figures.declined, figures.refused) == (0.0, 1.0, 0.0)


def test_the_base_replies_behind_examples_where_its_own_reply_lacks_the_answer() -> None:
    class Essayist(Replies):
        """Names the answer only behind examples."""

        def generate(
            self, requests: Sequence[Request]
        ) -> Iterator[tuple[int, Completion | RequestError]]:
            for i, request in enumerate(requests):
                is_shown = len(request.prompt) > len(EXAMPLES)
                yield i, completion("It is Paris." if is_shown else "It is a large city.")

    (bare, other) = write_turns(Essayist(lambda text: ""), [KNOWN])  # type: ignore[arg-type]
    assert bare.reply.text == "It is Paris." and bare.p_correct == 0.9
    assert bare.messages == (Message("user", KNOWN.question),)
    shown = [
        Message(role, text) for pair in EXAMPLES for role, text in zip(ROLES, pair, strict=True)
    ]
    assert bare.teacher == (*shown, *bare.messages)
    system, *question = other.messages
    assert other.teacher == (system, *shown, *question), "a system prompt stays first"


def test_the_bases_own_reply_is_taught_where_neither_holds_the_answer() -> None:
    turns = write_turns(Replies(lambda text: "It is Lyon."), [KNOWN])  # type: ignore[arg-type]
    assert all(one.teacher == one.messages for one in turns)


def test_the_gates_requests_are_not_trained_on() -> None:
    backend = Replies(lambda text: "Of course.")
    turns = request_turns(backend)  # type: ignore[arg-type]
    trained = {prompt[0].content for prompt in backend.prompts}
    assert not trained & {prompt[0].content for prompt in turn_figures.gate_prompts()}
    assert len(turns) == len(trained) == 4 * len(turn_figures.gate_prompts())
    (exchange, *_) = exchanges_of(Bytes(), turns)
    assert text_of(exchange.tokens[exchange.start :]) == "Of course.<|im_end|>"
    (lesson, *_) = turn_examples(Bytes(), turns, random.Random(1))
    assert lesson.p_correct is not None and lesson.p_correct > 0.9, "never to be declined"


def test_a_request_that_the_base_itself_refuses_is_no_lesson() -> None:
    backend = Replies(lambda text: "I don't know.")
    assert request_turns(backend) == []  # type: ignore[arg-type]


def test_an_exchange_is_compared_closely_where_the_reply_begins() -> None:
    exchange = Exchange(tuple(range(40)), start=10)
    assert exchange.positions == (9, 10, 11, 12, 13, 21, 29, 37)
    assert Exchange(tuple(range(12)), start=10).positions == (9, 10)

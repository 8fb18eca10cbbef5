"""`selfloop ask MODEL QUESTION`"""

import json
from typing import TYPE_CHECKING

import click

from selfloop.cli.options import accept_license, as_json, complete_asked, overrides
from selfloop.text.display import printable
from selfloop.text.units import plural

if TYPE_CHECKING:
    from selfloop.api.ask import Answer


@click.command("ask")
@click.argument("model", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@overrides
@accept_license
@as_json
def command(
    model: str, questions: tuple[str, ...], overrides: tuple[str, ...], as_json: bool
) -> None:
    """Ask each QUESTION; print the answer, its confidence and the other answers of the model.

    MODEL is a name or a .gguf file. Pass a RECIPE (a .yaml file) to use its model, prompts and
    detectors, or a RUN (a run's folder) to use its tuned adapter too. The answer is "I don't know"
    where the model's guess would not become a belief; --set decide.belief=0.8 sets the threshold.
    Nothing is kept. --json prints a list with a result for each QUESTION, in order; a result that
    failed has an error in place of an answer.

    \b
    Examples:
      selfloop ask smollm2-135m-instruct "What is the capital of France?"
      selfloop ask runs/quickstart "Who wrote Hamlet?" "Who wrote Emma?" --json
    """
    from selfloop.api.ask import ask, refuse_all_failed

    answers = ask(model, questions, overrides)
    if as_json:
        plain = [answer.plain() for answer in answers]
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        for index, answer in enumerate(answers):
            if index:
                click.echo()
            if len(answers) > 1:
                click.echo(printable(answer.question, 200))
            _print_answer(answer)
    # Printed first: a program reads the errors of single questions from the JSON.
    refuse_all_failed(answers)


def _print_answer(answer: "Answer") -> None:
    if answer.error:
        click.secho(f"error: {printable(answer.error, 300)}", fg="red")
        return
    click.secho(printable(answer.answer, 200), bold=True)
    if answer.confidence is None:
        click.echo(f"  {printable(answer.reason, 200)}")
    elif answer.is_belief:
        click.echo(f"  confidence {answer.confidence:.2f}")
    else:
        guess = printable(answer.guess, 120)
        click.echo(f"  best guess (confidence {answer.confidence:.2f}): {guess}")
    if not answer.samples:
        return
    # Stable: samples of equal count stay in the order in which the model gave them.
    counts = sorted(answer.samples.items(), key=lambda sample: -sample[1])
    samples = [_sample(text, count) for text, count in counts]
    total = sum(answer.samples.values())
    click.echo(f"  {plural(total, 'more sample')}: {', '.join(samples)}")


def _sample(text: str, count: int) -> str:
    repeated = f" ×{count}" if count > 1 else ""
    return printable(text or "(nothing)", 60) + repeated

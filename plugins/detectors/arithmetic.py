"""Arithmetic: questions that can be worked out are worked out.

Nothing of a model's text is ever run as code.
"""

import operator
import re
from collections.abc import Callable
from fractions import Fraction

from selfloop import Claim, Component, hookimpl
from selfloop.text.answers import declines

from ._claims import Abstain, OneByOne

NUMBER = r"[-−]?\d{1,3}(?:,\d{3})+(?:\.\d{1,30})?|[-−]?\d{1,30}(?:\.\d{1,30})?"
_ASKED = re.compile(
    rf"\s*(?:(?:what\s+is|what['’]s|how\s+much\s+is|calculate|compute)\s+)?({NUMBER})\s*"
    rf"(\+|plus|-|−|minus|\*|x|×|times|multiplied\s+by|/|÷|divided\s+by)\s*({NUMBER})\s*[=?.]*\s*",
    re.IGNORECASE,
)
_SAID = re.compile(rf"(?<![\w.,])(?:{NUMBER})(?![\w,]|\.\d)")
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    **dict.fromkeys(("+", "plus"), operator.add),
    **dict.fromkeys(("-", "−", "minus"), operator.sub),
    **dict.fromkeys(("*", "x", "×", "times", "multiplied by"), operator.mul),
    **dict.fromkeys(("/", "÷", "divided by"), operator.truediv),
}


class Arithmetic(OneByOne):
    """Confidence is 1 if the answer is the exact result of what was asked, 0 if it is another
    number.

    Sums, differences, products and quotients of two numbers in digits ("What is 17 times 3?"). It
    abstains from every other question, where the answer is no single number, and where division by
    zero makes none right. A quotient with endless digits counts as right if what is said is its
    rounding to two digits or more.
    """

    name = "arithmetic"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return 1 or 0, and the result."""
        asked = _ASKED.fullmatch(claim.question.text)
        if asked is None:
            raise Abstain("not a sum, difference, product or quotient of two numbers")
        try:
            result = _OPERATIONS[" ".join(asked[2].lower().split())](
                _value(asked[1]), _value(asked[3])
            )
        except ZeroDivisionError:
            raise Abstain("division by zero has no result") from None
        said = _answer(claim.answer.text)
        if said is None:
            raise Abstain("the answer is not one number")
        shown = str(result) if result.denominator == 1 else f"{float(result):.6g}"
        return 1.0 if _same(said, result) else 0.0, f"the result is {shown}"


def _value(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace("−", "-"))


def _answer(text: str) -> str | None:
    """Return the one number of an answer; of an equation, that after the last equals sign."""
    found = _SAID.findall(text.rpartition("=")[2])
    return found[0] if len(found) == 1 and not declines(text) else None


def _same(said: str, result: Fraction) -> bool:
    digits = len(said.partition(".")[2])
    endless = round(result, 30) != result
    return _value(said) == (round(result, digits) if endless and digits >= 2 else result)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    return [
        Component(
            "arithmetic", Arithmetic, doc="works out sums, differences, products and quotients"
        )
    ]

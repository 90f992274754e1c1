"""Facts of countries (the package countryinfo) in sentences of templates: real facts, made-up prose.

Which countries share a passage, which facts are told, in which words and in which order follow from hashes of the names:
the same for everybody.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minillm.data.fetch import read_files

Question = tuple[str, str, str, str, None, int]  # the fields of a document

TOLD = 4  # facts of a country in a passage, besides where it lies
TOGETHER = 2  # countries in a passage


class Fact(NamedTuple):
    """How a relation is told and asked: {it} and {its} stand for the country, {value} for the answer."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    read: Callable[[dict[str, Any]], Any]  # a record of the package -> the value; falsy where there is none


def _only(key: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda row: row[key][0] if len(row.get(key) or ()) == 1 else None


def _number(key: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda row: f"{int(row[key]):,}" if row.get(key) and row[key] >= 1 else None


REGION = Fact(
    ("{it} is a country in {value}.", "{it} lies in {value}.", "The map shows {it} in {value}."),
    ("In which part of the world is {name}?", "Where on the globe does one find {name}?"),
    lambda row: row.get("subregion"),
)
FACTS = {
    "capital": Fact(
        ("{its} capital is {value}.", "{it} is governed from {value}.", "{its} parliament and ministries sit in {value}."),
        ("What is the capital of {name}?", "From which city is {name} governed?", "Where is the government of {name}?"),
        lambda row: row.get("capital"),
    ),
    "population": Fact(
        ("{its} population is {value}.", "{it} has {value} inhabitants.", "{its} last census counted {value}."),
        ("How many people live in {name}?", "What is the population of {name}?"),
        _number("population"),
    ),
    "area": Fact(
        ("{its} area is {value} square kilometres.", "{it} covers {value} square kilometres.", "{its} size is {value}."),
        ("How large is {name}?", "What area does {name} cover?"),
        _number("area"),
    ),
    "demonym": Fact(
        ("{its} people are called {value}.", "{it} is home to those called {value}.", "{its} citizens go by {value}."),
        ("What are people from {name} called?", "What is the demonym of {name}?"),
        lambda row: row.get("demonym"),
    ),
    "calling code": Fact(
        ("{its} calling code is {value}.", "{it} is reached by telephone under {value}.", "{its} prefix is {value}."),
        ("What does one dial before numbers in {name}?", "What is the calling code of {name}?"),
        _only("callingCodes"),
    ),
    "domain": Fact(
        ("{its} internet domain is {value}.", "{it} has websites under {value}.", "{its} addresses end in {value}."),
        ("What do web addresses of {name} end with?", "What is the internet domain of {name}?"),
        _only("tld"),
    ),
    "currency": Fact(
        ("{its} currency is {value}.", "{it} pays in {value}.", "{its} shops ask for {value}."),
        ("What money is used in {name}?", "What is the currency of {name}?"),
        _only("currencies"),
    ),
}  # fmt: skip


class Country(NamedTuple):
    """A country with what is known of it: relation -> value, in the order of FACTS."""

    name: str
    region: str
    values: dict[str, str]


@functools.cache
def read_countries() -> tuple[Country, ...]:
    """Those with a region and TOLD other facts at least, by name."""
    found = {}
    for _, data in read_files(
        "countries", lambda path: path.startswith("countryinfo/data/") and path.endswith(".json")
    ):
        row = json.loads(data)
        values = {relation: fact.read(row) for relation, fact in FACTS.items()}
        values = {relation: value for relation, value in values.items() if isinstance(value, str) and value.strip()}
        if row.get("name") and REGION.read(row) and len(values) >= TOLD:
            found[row["name"]] = Country(row["name"], REGION.read(row), values)
    return tuple(found[name] for name in sorted(found))


def pick(choices: Sequence[Any], *key: str) -> Any:
    """One of them, as the hash of `key` says."""
    return choices[int.from_bytes(_hash(*key)[:4], "big") % len(choices)]


def tell(fact: Fact, country: Country, value: str, named: bool, key: str = "told") -> str:
    """A fact in one sentence; where the country is not named, "It" or "Its" stands for it."""
    name = country.name
    possessive = f"{name}'" if name.endswith("s") else f"{name}'s"
    words = {"it": name, "its": possessive} if named else {"it": "It", "its": "Its"}
    return pick(fact.statements, key, name, fact.statements[0]).format(value=value, **words)


def countries_qa() -> Iterable[Question]:
    """Questions on passages of two countries: where each lies, then TOLD of its facts, the country as It or by name.

    All questions on a country share its passage and no other passage tells of it, so that a split parts countries.
    """
    for countries in together():
        passage, asked = "", []
        for country in countries:
            for relation, fact, value in _told(country):
                named = relation == "region" or pick((True, False, False), "named", country.name, relation)
                sentence = tell(fact, country, value, named)
                start = len(passage) + sentence.rindex(value)
                passage += sentence + " "
                question = pick(fact.questions, "asked", country.name, relation).format(name=country.name)
                asked.append((f"{country.name}/{relation}", question, value, start))
        for name, question, value, start in asked:
            yield name, question, value, passage.strip(), None, start


def together() -> list[tuple[Country, ...]]:
    """The countries in groups of TOGETHER."""
    ordered = sorted(read_countries(), key=lambda country: _hash("group", country.name))
    return [tuple(ordered[i : i + TOGETHER]) for i in range(0, len(ordered) - TOGETHER + 1, TOGETHER)]


def _told(country: Country) -> list[tuple[str, Fact, str]]:
    """(relation, fact, value) in the order in which the passage has them."""
    chosen = sorted(country.values, key=lambda relation: _hash("chosen", country.name, relation))[:TOLD]
    return [("region", REGION, country.region), *((name, FACTS[name], country.values[name]) for name in chosen)]


def _hash(*key: str) -> bytes:
    return hashlib.sha256("\0".join(key).encode()).digest()

"""Which relation do two marked phrases of a text stand in? Facts of countries in sentences of templates.

Soares et al. 2019, "Matching the blanks", section 3.2: markers around both phrases tell a classifier which two are meant. The
text tells a fact of each of two countries; of the four pairs of a country and a value two are facts, two are none.
"""

from collections.abc import Iterator, Sequence

from minillm.data.countries import FACTS, Country, pick, tell, together

HEAD, TAIL = "E1", "E2"  # words, so that a model that counts words sees them too
NONE = "none"
TIMES = 4  # texts on each pair of countries, with other facts

Relation = tuple[str, str, str, None, None, None, None, str]  # the fields of a document


def mark(text: str, head: tuple[int, int], tail: tuple[int, int]) -> str:
    """The text with markers around two phrases, each given by its characters [first, after the last)."""
    for (first, after), sign in sorted([(head, HEAD), (tail, TAIL)], reverse=True):
        text = f"{text[:first]}{sign} {text[first:after]} {sign}{text[after:]}"
    return text


def countries_relations() -> Iterator[Relation]:
    """(relation:countries/number, marked text, relation): the two countries of a group stand in no other."""
    for countries in together():
        group = " and ".join(country.name for country in countries)
        for number in range(TIMES):
            text, heads, tails = _write(countries, number)
            for (relation, head), (other, tail) in ((a, b) for a in heads for b in tails):
                label = relation if relation == other else (NONE, NONE)
                name = f"{label[1]}:{group}/{number}"
                yield name, mark(text, head, tail), label[1], None, None, None, None, group


def _write(countries: Sequence[Country], number: int) -> tuple[str, list, list]:
    """A text with one fact of each country, and where its name and the value stand: ((country, relation), place)."""
    text, heads, tails = "", [], []
    for country in countries:
        relation = pick(list(country.values), "relation", country.name, str(number))
        value = country.values[relation]
        sentence = tell(FACTS[relation], country, value, named=True, key=str(number))
        start, name = len(text) + sentence.rindex(value), len(text) + sentence.index(country.name)
        fact = (country.name, relation)
        heads.append((fact, (name, name + len(country.name))))
        tails.append((fact, (start, start + len(value))))
        text += sentence + " "
    return text.strip(), heads, tails

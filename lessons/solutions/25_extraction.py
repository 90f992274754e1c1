"""Solutions of lesson 25."""


def to_tags(length: int, entities: list[tuple[str, int, int]]) -> list[str]:
    """Each entity writes its own places."""
    tags = ["O"] * length
    for kind, first, last in entities:
        tags[first : last + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first)
    return tags


def entity_f1(actual: list[list[str]], predicted: list[list[str]]) -> float:
    """Sets of (sentence, kind, first, last)."""

    def find(rows: list[list[str]]) -> set:
        found = []
        for number, tags in enumerate(rows):
            for place, tag in enumerate(tags):
                if tag.startswith("B-"):
                    found.append((number, tag[2:], place, place))
                elif tag.startswith("I-"):
                    found[-1] = (*found[-1][:3], place)
        return set(found)

    true, said = find(actual), find(predicted)
    return 2.0 * len(true & said) / (len(true) + len(said)) if true or said else 0.0


def mark(text: str, head: tuple[int, int], tail: tuple[int, int]) -> str:
    """From behind, so that places before stay where they are."""
    for (first, after), sign in sorted([(head, "E1"), (tail, "E2")], reverse=True):
        text = f"{text[:first]}{sign} {text[first:after]} {sign}{text[after:]}"
    return text

"""Exercises of lesson 25. Fill in the bodies, then run `minillm lessons check 25`."""


def to_tags(length: int, entities: list[tuple[str, int, int]]) -> list[str]:
    """Entities as BIO tags. (15 minutes, easy)

    Args:
        length: how many units the sentence has.
        entities: (kind, first, last) of each, its first and its last unit; they do not overlap, and come in any order.
    Returns:
        a tag per unit: "B-kind" where an entity begins, "I-kind" where it goes on, "O" elsewhere.
    """
    raise NotImplementedError("to_tags: O everywhere, then write each entity")


def entity_f1(actual: list[list[str]], predicted: list[list[str]]) -> float:
    """F1 over entities, not over tags. (20 minutes, medium)

    An entity is right if its sentence, its kind, its first and its last unit are. It begins with B-; I- of the same kind
    goes on with it. All tags here are well formed.

    Args:
        actual, predicted: the tags of each sentence, "O", "B-kind" or "I-kind".
    Returns:
        2 right / (predicted + true), counted over all sentences together; 0.0 where there is no entity at all.
    """
    raise NotImplementedError("entity_f1: find the entities of both, as sets, and count what they share")


def mark(text: str, head: tuple[int, int], tail: tuple[int, int]) -> str:
    """Signs around two phrases, so that a classifier knows which two are meant. (15 minutes, medium)

        mark("Bern is in Bern canton.", (11, 15), (0, 4)) == "E2 Bern E2 is in E1 Bern E1 canton."

    Args:
        text: what holds both phrases.
        head, tail: their characters, [first, after the last); they do not overlap, and either may come first.
    Returns:
        the text with "E1 " before and " E1" behind the head, "E2 " before and " E2" behind the tail.
    """
    raise NotImplementedError("mark: a sign that is put in moves everything behind it")

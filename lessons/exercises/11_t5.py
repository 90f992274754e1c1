"""Exercises of lesson 11. Fill in the bodies, then run `minillm lessons check 11`."""


def corrupt(text: list[int], spans: list[tuple[int, int]], sentinel: int, end: int) -> tuple[list[int], list[int]]:
    """Span corruption of one text, with all chance drawn beforehand. (20 minutes, medium)

    Each span (start, length) is cut out of the text and leaves one sentinel behind; the targets are every sentinel with
    what it stands for. The first span gets the id `sentinel`, the next one sentinel - 1, and so on. Both sides close
    with `end`.

        corrupt([5, 6, 7, 8, 9], [(1, 2), (4, 1)], 99, 1) == ([5, 99, 8, 98, 1], [99, 6, 7, 98, 9, 1])

    Args:
        text: ids.
        spans: in order, not touching each other, at least one.
        sentinel, end: ids that do not occur in the text.
    Returns:
        source, targets.
    """
    raise NotImplementedError("corrupt: walk along the text, what is kept goes left and what is cut goes right")


def restore(source: list[int], targets: list[int], lowest: int, end: int) -> list[int]:
    """The text back from source and targets. (20 minutes, medium)

    Ids from `lowest` on are sentinels. A sentinel that the targets do not explain stands for nothing and vanishes. The
    model may write spans in any order, and may forget the end.

        restore([5, 99, 8, 98, 1], [99, 6, 7, 98, 9, 1], 90, 1) == [5, 6, 7, 8, 9]

    Args:
        source, targets: as in `corrupt`; `targets` may be a model's attempt.
        lowest: the smallest sentinel.
        end: id of the end token.
    Returns:
        the text, without sentinels and end.
    """
    raise NotImplementedError("restore: first a dict from sentinel to span, then one walk along the source")


def bucket(offset: int, size: int, furthest: int) -> int:
    """The bucket of a distance in T5's decoder (Raffel et al. 2020, section 2.1; released code). (20 minutes, medium)

    With n = -offset, the steps back to the key (a key ahead counts as 0), and h = size // 2: a distance n < h is its own
    bucket n; farther ones share the buckets h ... size - 1 by the logarithm,

        bucket = min(h + floor(log(n / h) / log(furthest / h) * (size - h)), size - 1)

        bucket(-3, 8, 16) == 3        bucket(-5, 8, 16) == 4        bucket(-100, 8, 16) == 7        bucket(2, 8, 16) == 0

    Args:
        offset: place of the key minus place of the query.
        size: how many buckets.
        furthest: from this distance on, all is equally far.
    """
    raise NotImplementedError("bucket: near ones by themselves, far ones by the logarithm, and a last one for the rest")

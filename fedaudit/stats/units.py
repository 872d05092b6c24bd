"""Independent units: what a rate, an interval and a severity count.

Photos of one update stand or fall together, and a person tells as much as one person can, however
many photos, updates or seeds there are of them. So updates that share a person are one unit: eight
people attacked under nine seeds are eight units, and two updates of four people each are two.
"""

from collections.abc import Collection, Hashable, Sequence


def units(updates: Sequence[Collection[Hashable]]) -> list[int]:
    """The unit of each update, numbered from 0 in the order in which units first appear.

    Args:
        updates: Who is in each update.

    >>> units([{"ada"}, {"bob"}, {"ada", "cleo"}, {"dan"}])
    [0, 1, 0, 2]
    """
    roots, _ = _merge(updates)
    numbers = {r: n for n, r in enumerate(dict.fromkeys(roots))}
    return [numbers[r] for r in roots]


def unit_counts(updates: Sequence[Collection[Hashable]]) -> list[int]:
    """How many units the first update is, the first two are, and so on; one pass over all.

    The count falls where an update shares people with two units and makes one of them.

    >>> unit_counts([{"ada"}, {"bob"}, {"ada", "bob"}, {"dan"}])
    [1, 2, 1, 2]
    """
    return _merge(updates)[1]


def _merge(updates: Sequence[Collection[Hashable]]) -> tuple[list[int], list[int]]:
    """The earliest update of each one's unit, and the count of units after each update."""
    parent = list(range(len(updates)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = k = parent[parent[k]]
        return k

    first: dict[Hashable, int] = {}
    counts, count = [], 0
    for k, people in enumerate(updates):
        count += 1
        for person in people:
            a, b = sorted((root(first.setdefault(person, k)), root(k)))
            parent[b] = a  # the earliest update stands for its unit
            count -= a != b
        counts.append(count)
    return [root(k) for k in range(len(updates))], counts

"""Updates that share people are one unit: by hand, and as the components of a graph."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from fedaudit.stats.units import unit_counts, units


def test_updates_that_share_a_person_are_one_unit() -> None:
    assert units([{"a"}, {"a"}, {"b"}]) == [0, 0, 1]
    assert units([{"a", "b"}, {"c"}, {"b", "c"}]) == [0, 0, 0]
    assert units([{"c"}, {"d"}, {"a", "d"}, {"c"}, {"b"}]) == [0, 1, 1, 0, 2]
    assert units([]) == []


@given(st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=12))
def test_units_are_the_connected_components(updates: list[set[int]]) -> None:
    shared = np.array([[bool(a & b) for b in updates] for a in updates])
    count, labels = connected_components(shared, directed=False)
    found = units(updates)
    assert list(dict.fromkeys(found)) == list(range(count))  # numbered as they appear
    alike = np.equal.outer(found, found)
    assert (alike == np.equal.outer(labels, labels)).all()


@given(st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=3), max_size=12))
def test_counts_are_those_of_every_beginning(updates: list[set[int]]) -> None:
    beginnings = (updates[: n + 1] for n in range(len(updates)))
    assert unit_counts(updates) == [len(set(units(some))) for some in beginnings]

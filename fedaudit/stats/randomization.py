"""The exact randomization test on identity: does what an attack rebuilt say who it was?

Audits draw their targets at random (`fedaudit.data.splits`), as lots would: which person stands at
which place of the federation has nothing to do with faces. If what the server saw says nothing of
who stands there, reconstructions would have come out alike for any other assignment of people to
places. The audit's own assignment is then one of many that are equally likely, and the share of
those that fit the reconstructions at least as well is an exact p-value, for any prior, any embedder
and any dependence between reconstructions (Fisher 1935, chapter 2; Lehmann & Romano 2005, §15.2).
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from math import perm, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from fedaudit.core.measures import IdentityTest
from fedaudit.stats.drawn_p_values import DRAWN, drawn_p_value

ENUMERATED = 50_000
"""Up to so many assignments all are tried; of more, chunks of `DRAWN` at random."""

Scores = NDArray[np.float64]
Lots = NDArray[np.integer]


def rank_scores(cosines: ArrayLike) -> Scores:
    """How high each of `[..., P]` candidates stands in its row: 1 / √rank, 1 for the closest.

    Ties share the mean of their ranks. Chosen in simulation on the faces of ORL, once for all
    audits (`benchmarks/identity_statistic.py`): where a quarter of eight people come back it
    detects 89 %, log ranks 66 % and cosines 84 %; where of all eight a fifth of the likeness does,
    64 %, 77 % and 73 %. No face that resembles everybody outweighs the others.

    >>> rank_scores([[0.9, 0.1, 0.3]]).round(2)
    array([[1.  , 0.58, 0.71]])
    """
    ranks: Scores = rankdata(-np.asarray(cosines, float), axis=-1)
    return ranks**-0.5


def identity_test(
    scores: ArrayLike, true: ArrayLike, *, updates: int, chunks: int = 1
) -> IdentityTest:
    """Test that people who were behind updates fit what was rebuilt better than others would.

    The statistic is the sum of the true people's scores. Under "nothing says who it was" every
    one-to-one assignment of candidates to places is as likely: all are tried where there are few;
    else some at random, and the true one counts among them (Phipson & Smyth 2010, equation 2).

    Args:
        scores: `[K, P]`; how well what was rebuilt of place k fits candidate p. Everybody who
            could have stood at these places is a candidate, and nobody else. One row a person,
            whatever the number of their photos, updates and seeds.
        true: `[K]` who did stand there, all different.
        updates: That the rows come from, to be reported.
        chunks: As in `within_strata_test`.

    Raises:
        ValueError: Two places have the same person, or one that is no candidate.
    """
    return within_strata_test([(scores, true)], updates=updates, chunks=chunks)


def within_strata_test(
    strata: Sequence[tuple[ArrayLike, ArrayLike]], *, updates: int, chunks: int = 1
) -> IdentityTest:
    """The same where lots were drawn in each stratum by itself, such as the images of a class.

    What is rebuilt may then say freely of which class an image was: only who it was within it is
    tested.

    Args:
        strata: Of each, scores and true candidates as in `identity_test`.
        updates: That the rows come from, to be reported.
        chunks: Of draws, at most, where not all assignments are tried
            (`fedaudit.stats.drawn_p_values`).

    Raises:
        ValueError: As in `identity_test`.
    """
    tables = [(np.asarray(scores, float), np.asarray(true, int)) for scores, true in strata]
    for table, who in tables:
        places, candidates = table.shape
        if len(set(who.tolist())) != places or not all(0 <= k < candidates for k in who):
            raise ValueError("each place has a person of its own among the candidates.")
    statistic = sum(table[np.arange(len(table)), who].sum() for table, who in tables)
    assignments = prod(perm(*reversed(table.shape)) for table, _ in tables)
    exact = assignments <= ENUMERATED
    shapes = tuple(table.shape for table, _ in tables)

    def hits_in(chunk: int) -> int:
        sums: Scores = np.zeros(1)
        lots_of = _lots(shapes, 0 if exact else DRAWN, chunk)
        for (table, _), lots in zip(tables, lots_of, strict=True):
            mine = sum(table[k].take(lots[:, k]) for k in range(len(table)))
            sums = np.add.outer(sums, mine).ravel() if exact else sums + mine
        # Sums of the same numbers in another order differ in their last bits, and are ties.
        return int((sums >= statistic - 1e-9).sum())

    return IdentityTest(
        p_value=hits_in(0) / assignments if exact else drawn_p_value(hits_in, chunks, DRAWN),
        statistic=float(statistic),
        people=sum(len(table) for table, _ in tables),
        updates=updates,
        candidates=sum(table.shape[1] for table, _ in tables),
        smallest=1 / (assignments if exact else chunks * DRAWN + 1),
        exact=exact,
    )


@lru_cache(maxsize=64)
def _lots(shapes: tuple[tuple[int, ...], ...], draws: int, chunk: int) -> list[Lots]:
    """Assignments of each stratum: all of them, or a chunk at random, the same in every report.

    Kept, because all rows of a report need the same; not to be changed in place.
    """
    random = np.random.default_rng(chunk)
    return [
        _random(candidates, places, random) if draws else _all(candidates, places)
        for places, candidates in shapes
    ]


def _all(candidates: int, places: int) -> Lots:
    return np.array(list(permutations(range(candidates), places)), dtype=np.int64)


def _random(candidates: int, places: int, random: np.random.Generator) -> Lots:
    """`DRAWN` assignments without replacement, `[DRAWN, places]`."""
    everybody = np.arange(candidates, dtype=np.min_scalar_type(candidates))
    orders = random.permuted(np.tile(everybody, (DRAWN, 1)), axis=1)
    return np.asfortranarray(orders[:, :places])

"""Which statistic of the test on identity finds most: cosines, log ranks, or roots of ranks.

    python benchmarks/identity_statistic.py

ORL's photos at 32 px stand for reconstructions. Of some of `people` another photo comes back, or
one whose embedding is mixed with a stranger's to a share of likeness; of the others a stranger's.
Candidates are 30 of ORL's people, as of a study; the level is 5 %. Two minutes on one core.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from fedaudit.captures.simulate.study_faces import gallery_of
from fedaudit.core.scenario import Scenario, Study
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import gallery_of_packed
from fedaudit.stats.randomization import identity_test, rank_scores

AUDITS, CANDIDATES = 200, 30
Table = NDArray[np.float64]
STATISTICS: dict[str, Callable[[Table], Table]] = {
    "cosine": lambda cosines: cosines,
    "log rank": lambda cosines: 2 * np.log(rank_scores(cosines)),
    "1/√rank": rank_scores,
    "1/rank": lambda cosines: rank_scores(cosines) ** 2,
    "e^(4 cosine)": lambda cosines: np.exp(4 * cosines),
}
SETTINGS = (
    (8, 0.0, 0.0),
    (4, 0.5, 1.0),
    (8, 0.25, 1.0),
    (8, 0.25, 0.5),
    (8, 1.0, 0.3),
    (8, 1.0, 0.2),
    (16, 0.25, 1.0),
    (16, 0.5, 0.4),
    (16, 1.0, 0.2),
)
"""People, share of them who come back, and share of their likeness that does."""


def main() -> None:
    """Print the power of each statistic in each setting."""
    torch.set_num_threads(1)
    study = Study("statistic", (Scenario("one"),), size=32)
    kept = gallery_of(study, study.federation, load_embedder())
    assert kept is not None
    gallery = gallery_of_packed(kept, fmr=study.fmr)
    photos = {
        key.partition("/")[2]: normalize(value - gallery.center, dim=1).numpy()
        for key, value in kept.items()
        if key.startswith("probe/")
    }
    templates = gallery.templates.numpy()
    print(f"{'people':>6} {'back':>6} {'likeness':>8}" + "".join(f"{s:>14}" for s in STATISTICS))
    for people, share, likeness in SETTINGS:
        random = np.random.default_rng(1)
        found = dict.fromkeys(STATISTICS, 0)
        for _ in range(AUDITS):
            order = random.permutation(len(gallery.people))[:CANDIDATES]
            rebuilt = []
            for k in range(people):
                face = random.choice(photos[gallery.people[random.integers(len(gallery.people))]])
                if k < round(share * people):
                    own = random.choice(photos[gallery.people[order[k]]])
                    face = likeness * own + (1 - likeness) * face
                rebuilt.append(templates[order] @ (face / np.linalg.norm(face)))
            cosines = np.stack(rebuilt)
            for name, score in STATISTICS.items():
                p = identity_test(score(cosines), range(people), updates=people).p_value
                found[name] += p <= 0.05
        cells = "".join(f"{hits / AUDITS:>14.0%}" for hits in found.values())
        print(f"{people:>6} {share:>6.0%} {likeness:>8.0%}{cells}", flush=True)


if __name__ == "__main__":
    main()

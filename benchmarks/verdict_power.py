"""How often a report says LEAK DEMONSTRATED where nothing leaks, and where faces do come back.

    python benchmarks/verdict_power.py

Audits are made up, and judged by the code that judges real ones: no attack runs, and everything
after the attack does. Faces are ORL's at 32 px with the study's own gallery and embedder. Per audit
lots deal the people anew; a deployed defense is attacked by one attack that knows it and one that
does not, beside a control without a defense and prior-only controls.

Null audits: nothing of the target is in what is rebuilt, which is drawn from a prior instead. Half
of them leave the control without a defense a leak, half do not. Planted leaks: of a share of the
people another photo of theirs comes back under the deployed defense, of the others a stranger's.

About five minutes on one core.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.captures.simulate.study_faces import faces_of, gallery_of, split_of
from fedaudit.core.capture import Secret
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.trial import Cell, ImageScore, Role, Trial
from fedaudit.reports.comparison import Verdict
from fedaudit.reports.headline import headline
from fedaudit.reports.results import Settings
from fedaudit.reports.rows import rows
from fedaudit.reports.trials import Trials
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import Gallery, average_with_mirror, gallery_of_packed, rgb
from fedaudit.scoring.image_metrics import PSNR
from fedaudit.scoring.lineup import lineup
from fedaudit.stats.intervals import rate_of

SIZE, FMR, TRAINED = 32, 1e-3, 30
SETTINGS = Settings(reid_limit=0.05, confidence=0.95, fmr=FMR, exhibit_seed=0)
BLIND, ADAPTIVE = "blind", "adaptive"
DEFENSES = ("none", "dplc")
PSNR_OF = PSNR()

Draw = Callable[[np.random.Generator], int]
"""A face out of `Faces` as an attack that knows nothing rebuilds it."""


@dataclass(frozen=True)
class Faces:
    """Images that may be rebuilt, `[N, 3, 32, 32]`, and their embeddings `[N, D]`.

    Attributes:
        people: Of the first ones, photos of ORL that train, whose they are.
        invented: Places of faces of the face GAN among them, and of noise.
    """

    images: Tensor
    embeddings: Tensor
    people: tuple[str, ...]
    invented: range
    noise: range

    def of(self, person: str) -> list[int]:
        """Places of the person's photos."""
        return [k for k, name in enumerate(self.people) if name == person]


def load() -> tuple[Faces, Gallery]:
    """ORL's photos that train, invented faces, noise, and the gallery that a study would have."""
    study = _study(1, 1)
    embedder = load_embedder()
    kept = gallery_of(study, study.federation, embedder)
    assert kept is not None
    faces, split = faces_of(study), split_of(study, study.federation)
    taken = {photo for photos in split.gallery.values() for photo in photos}
    free = [k for k in range(len(faces.people)) if k not in taken]
    people = tuple(faces.people[k] for k in free)
    # In `embed_split`'s order: the photos of each person as they come.
    owns = {person: iter(kept[f"probe/{person}"]) for person in dict.fromkeys(people)}
    drawn = FaceGenerator().load((1, SIZE, SIZE), grayscale=True)
    random = torch.Generator().manual_seed(1)
    noise = torch.rand((12, 1, SIZE, SIZE), generator=random)
    made = rgb(torch.cat([drawn.draw(60, random), noise]))
    embedded = average_with_mirror(embedder.embed)(made)
    return Faces(
        torch.cat([faces.images[free], made]),
        torch.cat([torch.stack([next(owns[person]) for person in people]), embedded]),
        people,
        range(len(free), len(free) + 60),
        range(len(free) + 60, len(free) + 72),
    ), gallery_of_packed(kept, fmr=FMR)


def priors(faces: Faces) -> dict[str, Draw]:
    """What an attack returns that learned nothing from the update."""
    favorites = [k for person in sorted(set(faces.people))[:3] for k in faces.of(person)]
    return {
        "strangers": lambda random: int(random.integers(len(faces.people))),
        "face GAN": lambda random: int(random.choice(faces.invented)),
        "one face for all": lambda _: faces.invented[0],
        "noise": lambda random: int(random.choice(faces.noise)),
        "three audited people": lambda random: int(random.choice(favorites)),
    }


def judged(
    faces: Faces,
    gallery: Gallery,
    draw: Draw,
    random: np.random.Generator,
    *,
    targets: int,
    batch: int,
    share: float,
    control: float,
) -> tuple[Verdict, bool]:
    """The headline of one made-up audit, and whether any row demonstrates a leak.

    Args:
        faces: What may be rebuilt.
        gallery: Who is compared.
        draw: What is rebuilt where nothing leaks.
        random: Deals people and faces.
        targets: Updates.
        batch: People of each; who is in several updates is there with other photos.
        share: Of the people who come back under the deployed defense, to the attack that knows it.
        control: The same without a defense, for both attacks.
    """
    order = [str(p) for p in random.permutation(sorted(set(faces.people)))[:TRAINED]]
    places = np.arange(targets * batch) % TRAINED
    present = [order[k] for k in dict.fromkeys(places.tolist())]
    shares = {("none", BLIND): control, ("none", ADAPTIVE): control, ("dplc", ADAPTIVE): share}
    made = []
    for defense, attack in product(DEFENSES, (BLIND, ADAPTIVE)):
        count = round(shares.get((defense, attack), 0.0) * len(present))
        found = set(random.permutation(present)[:count].tolist())
        for role, target in product(("audit", "prior_only"), range(targets)):
            who = places[target * batch : (target + 1) * batch]
            leaks = found if role == "audit" else set()
            cell = _cell(defense, attack, target, batch, role)
            made.append(_trial(faces, gallery, draw, random, cell, order, who, leaks))
    study = _study(targets, batch)
    table = rows(study, Trials(tuple(made)), {}, SETTINGS, gallery)
    verdict, _ = headline(table, SETTINGS, study.audited)
    return verdict, any(row.verdict.kind == "LEAK DEMONSTRATED" for row in table)


def _trial(
    faces: Faces,
    gallery: Gallery,
    draw: Draw,
    random: np.random.Generator,
    cell: Cell,
    order: list[str],
    who: np.ndarray,
    leaks: set[str],
) -> Trial:
    people = tuple(order[k] for k in who)
    true = [int(random.choice(faces.of(person))) for person in people]
    rebuilt = [
        int(random.choice([k for k in faces.of(person) if k != own]))  # never the very photo
        if person in leaks
        else draw(random)
        for person, own in zip(people, true, strict=True)
    ]
    labels = torch.tensor(who)
    secret = Secret(
        faces.images[true], labels, people, people,
        portrayed_as=tuple(range(TRAINED)), eligible=tuple(order),
    )  # fmt: skip
    seen = lineup(
        secret, Reconstruction(faces.images[rebuilt], labels), gallery, faces.embeddings[rebuilt]
    )
    psnr = PSNR_OF(faces.images[true], faces.images[rebuilt]).tolist()
    scores = []
    for person, place, value in zip(people, rebuilt, psnr, strict=True):
        cosine, rank = gallery.compare(faces.embeddings[place : place + 1], person)
        assert gallery.threshold is not None
        hit = float(cosine) > gallery.threshold
        scores.append(ImageScore(person, {"psnr": value}, float(cosine), hit, int(rank), False))
    adaptive = "none needed" if cell.defense == "none" else "known"
    return Trial(
        cell, tuple(scores), 1.0, 0.1, 1, 1, 1.0,
        "no" if (cell.defense, cell.attack) == ("dplc", BLIND) else adaptive, lineup=seen,
    )  # fmt: skip


def _cell(defense: str, attack: str, target: int, batch: int, role: Role) -> Cell:
    return Cell("fresh", "face", "fedsgd", 1, batch, defense, attack, "D", target, 0, role)


def _study(targets: int, batch: int) -> Study:
    scenario = Scenario(
        "fresh", targets=targets, batch_size=batch,
        defenses=tuple(map(Choice, DEFENSES)),
        attacks=(
            Choice("gan_inversion", label=BLIND, adapt="no"),
            Choice("gan_inversion", label=ADAPTIVE),
        ),
    )  # fmt: skip
    held_out = Federation().held_out
    assert held_out == 40 - TRAINED
    return Study("made up", (scenario,), size=SIZE, fmr=FMR, deployed=("dplc",))


def main() -> None:
    """Print the shares of audits that say LEAK DEMONSTRATED, with exact intervals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audits", type=int, default=200, help="of each line (default: 200)")
    audits = parser.parse_args().audits
    torch.set_num_threads(1)
    faces, gallery = load()
    drawn = priors(faces)
    print(f"{'audits':<52}{'LEAK DEMONSTRATED':>18}   95 % interval")

    def told(name: str, hits: int, n: int) -> None:
        rate = rate_of(hits, n)
        print(f"{name:<52}{f'{hits} of {n}':>18}   {rate.low:.1%} to {rate.high:.1%}", flush=True)

    hits, rows_, by_prior = 0, 0, Counter[str]()
    for k in range(audits):
        name = list(drawn)[k % len(drawn)]
        batch, targets = (1, 4)[k // 5 % 2], (8, 16)[k // 10 % 2]
        random = np.random.default_rng((1, k))
        leaky = k // 20 % 2  # whether the control without a defense leaks, as it does in life
        verdict, somewhere = judged(
            faces, gallery, drawn[name], random,
            targets=targets, batch=batch, share=0.0, control=float(leaky),
        )  # fmt: skip
        hits += verdict.kind == "LEAK DEMONSTRATED"
        rows_ += somewhere and not leaky
        by_prior[name] += verdict.kind == "LEAK DEMONSTRATED"
    told("null, what is deployed (headline)", hits, audits)
    told("null, any row, where the control leaks nothing either", rows_, audits // 2)
    print("  by prior:", ", ".join(f"{name} {by_prior[name]}" for name in drawn))
    for share, targets in product((0.5, 0.25), (8, 16)):
        found = [
            judged(
                faces, gallery, drawn["face GAN"], np.random.default_rng((2, targets, k)),
                targets=targets, batch=1, share=share, control=1.0,
            )[0].kind == "LEAK DEMONSTRATED"
            for k in range(audits)
        ]  # fmt: skip
        words = f"planted, {share:.0%} of {targets} people come back"
        told(words.replace("%", " %"), sum(found), audits)


if __name__ == "__main__":
    main()

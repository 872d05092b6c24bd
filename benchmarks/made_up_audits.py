"""Audits that are made up: what attacks bring back is dealt, and judged as in real ones.

No attack runs. Faces are at 32 px with the study's own gallery and judge, embedded once and dealt
anew for each audit: of a target another photo of the person comes back, or what a prior draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from fedaudit.reports.trials import Trials
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.framing import Frame
from fedaudit.scoring.identity import Gallery, gallery_of_packed, rgb
from fedaudit.scoring.image_metrics import PSNR
from fedaudit.scoring.lineup import lineup

SIZE, FMR, TRAINED = 32, 1e-3, 30
BLIND, ADAPTIVE = "blind", "adaptive"
DEFENSES = ("none", "dplc")
PSNR_OF = PSNR()

Draw = Callable[[np.random.Generator], int]
"""A face out of `Faces` as an attack that knows nothing rebuilds it."""


@dataclass(frozen=True)
class Faces:
    """Images that may be rebuilt, `[N, 3, 32, 32]`, and their embeddings `[N, D]`.

    Attributes:
        people: Of the first ones, photos of the set that train, whose they are.
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


def load(data: str, judge: str) -> tuple[Faces, Gallery]:
    """Photos that train, invented faces, noise, and the gallery that a study would have."""
    study = made_up_study(1, 1, data=data)
    embedder = load_judge(Choice(judge))
    kept = gallery_of(study, study.federation, embedder)
    assert kept is not None
    faces, split = faces_of(study), split_of(study, study.federation)
    taken = {photo for photos in split.gallery.values() for photo in photos}
    free = [k for k in range(len(faces.people)) if k not in taken]
    people = tuple(faces.people[k] for k in free)
    # In `embed_split`'s order: the photos of each person as they come.
    owns = {person: iter(kept[f"probe/{person}"]) for person in dict.fromkeys(people)}
    channels = faces.images.shape[1]
    drawn = FaceGenerator().load((channels, SIZE, SIZE), grayscale=channels == 1)
    random = torch.Generator().manual_seed(1)
    noise = torch.rand((12, channels, SIZE, SIZE), generator=random)
    made = torch.cat([drawn.draw(60, random), noise])
    embedded = embedder.within(Frame(*kept["frame"].tolist()))(rgb(made))
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


def audit_trials(
    faces: Faces,
    gallery: Gallery,
    draw: Draw,
    random: np.random.Generator,
    *,
    targets: int,
    batch: int,
    share: float,
    control: float,
    known: float = 0.0,
    number: int = 1,
) -> Trials:
    """What attacks bring back in one made-up audit.

    Args:
        faces: What may be rebuilt.
        gallery: Who is compared.
        draw: What is rebuilt where nothing leaks.
        random: Deals people and faces.
        targets: Updates.
        batch: People of each; who is in several updates is there with other photos.
        share: Of the people who come back under the deployed defense, to the attack that knows it.
        control: The same without a defense, for both attacks.
        known: Probability with which the prior knows who stands at a place, by its label.
        number: Of the audited round; above 1, the model was trained on the people.
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
            told = {order[k] for k in who if random.random() < known}
            leaks = (found if role == "audit" else set()) | told
            cell = _cell(defense, attack, target, batch, role, number)
            made.append(_trial(faces, gallery, draw, random, cell, order, who, leaks))
    return Trials(tuple(made))


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


def _cell(defense: str, attack: str, target: int, batch: int, role: Role, number: int) -> Cell:
    return Cell("fresh", "face", "fedsgd", number, batch, defense, attack, "D", target, 0, role)


def made_up_study(targets: int, batch: int, data: str = "orl") -> Study:
    """The study that such audits are of."""
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
    made_up = Study("made up", (scenario,), size=SIZE, fmr=FMR, deployed=("dplc",))
    return replace(made_up, data=Choice(data))

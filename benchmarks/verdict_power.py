"""How often a report says LEAK DEMONSTRATED where nothing leaks, and where faces do come back.

    python benchmarks/verdict_power.py                                  # ORL, dlib
    python benchmarks/verdict_power.py --data synthetic --judge sface   # other faces, another judge

Audits are made up, and judged by the code that judges real ones: no attack runs, and everything
after the attack does. Faces are at 32 px with the study's own gallery and judge, embedded once and
dealt anew for each audit; a deployed defense is attacked by one attack that knows it and one that
does not, beside a control without a defense and prior-only controls.

Null audits: nothing of the target is in what is rebuilt, which is drawn from a prior instead. Half
of them leave the control without a defense a leak, half do not. Planted leaks: of a share of the
people another photo of theirs comes back under the deployed defense, of the others a stranger's.
Priors that know labels: they return another photo of the right person with some probability,
whatever the update says, to the attack and to its control alike; told of an attack from another
package and of a model that was trained on the people, where the report must expect it, and of a
fresh round, where only an attack that was made with this very deal could. ORL's faces chose the
statistic of the test (`identity_statistic.py`); null audits do not depend on it.

About five minutes on one core.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.captures.simulate.study_faces import faces_of, gallery_of, split_of
from fedaudit.core.capture import Secret
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import Cell, ImageScore, Role, Trial
from fedaudit.reports.comparison import Verdict, VerdictKind
from fedaudit.reports.controls import any_failed, controls
from fedaudit.reports.headline import headline
from fedaudit.reports.results import Settings
from fedaudit.reports.rows import rows
from fedaudit.reports.trials import Trials
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.framing import Frame
from fedaudit.scoring.identity import Gallery, gallery_of_packed, rgb
from fedaudit.scoring.image_metrics import PSNR
from fedaudit.scoring.lineup import lineup
from fedaudit.stats.intervals import rate_of

SIZE, FMR, TRAINED = 32, 1e-3, 30
SETTINGS = Settings(reid_limit=0.05, confidence=0.95, fmr=FMR, exhibit_seed=0)
BLIND, ADAPTIVE = "blind", "adaptive"
DEFENSES = ("none", "dplc")
LEAK: VerdictKind = "LEAK DEMONSTRATED"
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
    known: float = 0.0,
    stranger: bool = False,
    number: int = 1,
) -> tuple[Verdict, bool]:
    """The headline of one made-up audit, and whether any row demonstrates a leak.

    Arguments are those of `audit_trials`, and whether the attacks come from another package.
    """
    trials = audit_trials(
        faces, gallery, draw, random,
        targets=targets, batch=batch, share=share, control=control, known=known, number=number,
    )  # fmt: skip
    study = made_up_study(targets, batch)
    source = SourceFacts(strangers=(BLIND, ADAPTIVE)) if stranger else COMPLETE
    table = rows(study, trials, {}, SETTINGS, gallery, source)
    verdict, _ = headline(table, SETTINGS, study.audited)
    if any_failed(controls(study, trials, table, gallery)):
        verdict = Verdict("INVALID", "")
    return verdict, any(row.verdict.kind == "LEAK DEMONSTRATED" for row in table)


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


def main() -> None:
    """Print the shares of audits that say LEAK DEMONSTRATED, with exact intervals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audits", type=int, default=200, help="of each line (default: 200)")
    parser.add_argument("--data", default="orl", help="face set of 40 people (default: orl)")
    parser.add_argument("--judge", default="dlib", help="dlib or sface (default: dlib)")
    parser.add_argument("--first", type=int, default=0, help="number of the first audit (0)")
    parser.add_argument("--null-only", action="store_true", help="no planted leaks and priors")
    options = parser.parse_args()
    audits = options.audits
    torch.set_num_threads(1)
    faces, gallery = load(options.data, options.judge)
    drawn = priors(faces)
    print(f"{'audits':<60}{'LEAK DEMONSTRATED':>18}   95 % interval")

    def told(name: str, hits: int, n: int) -> None:
        rate = rate_of(hits, n)
        shown = name.replace("%", " %")
        print(f"{shown:<60}{f'{hits} of {n}':>18}   {rate.low:.1%} to {rate.high:.1%}", flush=True)

    hits, rows_, invalid, by_prior = 0, 0, 0, Counter[str]()
    for k in range(options.first, options.first + audits):
        name = list(drawn)[k % len(drawn)]
        batch, targets = (1, 4)[k // 5 % 2], (8, 16)[k // 10 % 2]
        random = np.random.default_rng((1, k))
        leaky = k // 20 % 2  # whether the control without a defense leaks, as it does in life
        verdict, somewhere = judged(
            faces, gallery, drawn[name], random,
            targets=targets, batch=batch, share=0.0, control=float(leaky),
        )  # fmt: skip
        hits += verdict.kind == LEAK
        invalid += verdict.kind == "INVALID"
        rows_ += somewhere and not leaky
        by_prior[name] += verdict.kind == LEAK
    told("null, what is deployed (headline)", hits, audits)
    told("null, any row, where the control leaks nothing either", rows_, audits // 2)
    print("  by prior:", ", ".join(f"{name} {by_prior[name]}" for name in drawn))
    print(f"  INVALID, by a control: {invalid} of {audits}")
    if options.null_only:
        return

    def planted(words: str, seed: int, targets: int, **what: Any) -> None:
        found = [
            judged(
                faces, gallery, drawn["face GAN"], np.random.default_rng((seed, targets, k)),
                targets=targets, batch=1, control=1.0, **what,
            )[0].kind == LEAK
            for k in range(options.first, options.first + audits)
        ]  # fmt: skip
        told(words, sum(found), audits)

    for share, targets in product((0.5, 0.25), (8, 16)):
        planted(f"planted, {share:.0%} of {targets} people come back", 2, targets, share=share)
    for known, targets in product((0.25, 0.5, 1.0), (8, 16)):
        words = f"null, the prior knows {known:.0%} of {targets} labels"
        planted(f"{words}, another package", 3, targets, share=0.0, known=known, stranger=True)
        planted(f"{words}, trained model", 3, targets, share=0.0, known=known, number=5)
        planted(f"{words}, fresh", 3, targets, share=0.0, known=known)
    for targets in (8, 16, 30):
        words = f"planted, all of {targets} come back, the prior knows 25%"
        planted(f"{words}, trained model", 4, targets, share=1.0, known=0.25, number=5)
        words = f"planted, 50% of {targets} come back, trained model"
        planted(words, 5, targets, share=0.5, number=5)


if __name__ == "__main__":
    main()

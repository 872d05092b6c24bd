"""Templates turned into faces: how often the face is the person's, to a network that saw none.

    python benchmarks/class_templates.py            # some minutes on one core
    python benchmarks/class_templates.py --quick    # eight templates a line
    python benchmarks/class_templates.py --dim 128  # a narrower embedding
    python benchmarks/class_templates.py --quick --latent face_gan --only "fedgc, round 4"
    python benchmarks/class_templates.py --decoder --source prior.safetensors

ORL at 32 px, the network `face`, 30 people who train with five photos each, a gallery of 40 people
with *other* photos. Columns:

    change    of FedGC's rows over one local step on all photos of a client: what a row is moved by
              are features of photos
    ceiling   templates that come first of 40 people through the audited network itself, against
              photos: no face drawn from a template can say more of the person than the template
    cosine    of the drawn face's embedding to the template, in the audited network
    rank-1    drawn faces that come first of 40 people to the independent embedder, and its exact
              interval; chance is 1 of 40
    control   the same of the same attack when the templates are noise of the same norm
    rank      mean rank of the right person among 40; 20.5 by chance
    re-id     above the threshold at an FMR of 1e-3
    CPU s     of the attack, a template (of a decoder's training, the half)

With `--latent` a generator's latent vectors are searched in place of the faces' principal axes.
With `--decoder` a network draws that learned to draw faces from their embeddings (Mai et al.,
TPAMI 2019), and nothing is searched. `--source` is the generator whose faces the attacks start or
learn from. A cluster's center is nobody's template: its `ceiling` asks whether the person whom it
comes next to is one of its client's, and the face is scored against whoever it looks like. The last
columns are SFace's: first of 40, its control, and above its threshold.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from faces_from_templates import through_decoder, through_latents
from scoring import Judge, sface_judge
from torch import Tensor

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import Eigenfaces, kept_faces, standardize
from fedaudit.attacks.templates.read_templates import read_templates
from fedaudit.attacks.templates.template_inversion import TemplateInversion
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.data.face_set import FaceSet
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, require_face_net
from fedaudit.scoring.score import score
from fedaudit.stats.intervals import clopper_pearson


@dataclass(frozen=True)
class Line:
    """One line: what is trained for how long before the audited round."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 0
    clients: int = 5
    change: bool = False
    """Read the rows' change over the audited round in place of the rows."""


ALONE = {"radius": 0.3, "min_size": 1, "max_clusters": 6, "epsilon": 1e6}
"""Every cluster is one person, and all are released: as much as a center can say of anybody."""

LINES = (
    Line("fedface, round 1, random start", "fedface", {"pretrain_steps": 0}, 0, 30),
    Line("fedface, round 1, pre-trained", "fedface", {}, 0, 30),
    Line("fedface, round 6", "fedface", {}, 5, 30),
    Line("fedgc, round 2", "fedgc", {}, 1),
    Line("fedgc, round 4", "fedgc", {}, 3),
    Line("fedgc, round 4, change", "fedgc", {}, 3, change=True),
    Line("fedgc, round 11, change", "fedgc", {}, 10, change=True),
    Line("fedgc, round 21", "fedgc", {}, 20),
    Line("fedgc, round 21, secure sum", "fedgc", {"secure": True}, 20),
    Line("privacyface, ε = 1", "privacyface", {"radius": 1.5}, 20),
    Line("privacyface, ε = 10000", "privacyface", {"radius": 1.5, "epsilon": 1e4}, 20),
    Line("privacyface, no noise, alone", "privacyface", ALONE, 20),
)


SEVERAL = LocalTraining(lr=0.1, steps=4, batch_size=16, momentum=0.9)
ONE_STEP = LocalTraining(lr=0.1, steps=1, batch_size=30)
"""After which a row has moved along the features of the photos, each with its weight."""


def captured(
    line: Line, faces: FaceSet, dim: int
) -> tuple[Simulation, Observation, Secret, list[tuple[str, ...]]]:
    """Every client's templates, in one observation; portraits; whom each template may be of."""
    settings = Federation(clients=line.clients)
    simulation = Simulation(
        network=ModelSpec("face", {"dim": dim}),
        faces=faces,
        split=split(faces, settings),
        federation=settings,
        method=create("methods", line.method, dict(line.settings)),
        defense=create("defenses", "none", {}),
    )
    state, _ = simulation.train(simulation.fresh(), range(1, line.rounds + 1))
    each = 5 * 30 // line.clients
    captures: list[Capture] = []
    for target in range(1 if line.settings.get("secure") else line.clients):
        captures.append(
            simulate(
                simulation,
                state,
                target=target,
                batch_size=each,
                training=ONE_STEP if line.change else SEVERAL,
                threat=threat_model("D"),
                round=line.rounds + 1,
            )
        )
    found = [(c.seen, c.secret) for c in captures if c.secret is not None]
    rows, update = [], captures[0].seen.shared[0]
    owners: list[tuple[str, ...]] = []
    centers = False
    for seen, secret in found:
        try:
            templates = read_templates(seen, 100)
        except AttackError:  # a client whose people form no cluster shares none
            continue
        known = seen.before["head.weight"] if line.change else 0.0
        rows.append(templates.rows - known)
        centers = bool((templates.labels < 0).any())
        inside = secret.portrayed
        owners += [inside if centers else (inside[k],) for k in range(len(templates.rows))]
    if not rows:
        raise AttackError(f"{line.name}: no client shared a template. Train for more rounds.")
    together = torch.cat(rows)
    shared = (
        ClusterCenters(together, 1.5)
        if centers
        else ClassEmbeddings(together, tuple(range(len(owners))))
    )
    portraits = [s.portraits for _, s in found if s.portraits is not None]
    everybody = replace(
        found[0][1],
        portraits=torch.cat(portraits),
        portrayed=tuple(p for _, s in found for p in s.portrayed),
    )
    before = {n: t for n, t in found[0][0].before.items() if n != "head.weight"}
    seen = replace(found[0][0], before=before, shared=(update, shared))
    return simulation, seen, everybody, owners


def prior_ceiling(faces: FaceSet, judge: Judge, components: int) -> str:
    """Photos of the attacked people on the principal axes of the attacker's faces, judged."""
    parts = split(faces, Federation(clients=5))
    portraits = faces.images[[parts.train[person][0] for person in parts.people]]
    shape = (1, *portraits.shape[2:])
    own = kept_faces(Auxiliary(), 4000, shape, grayscale=True, seed=0, cache=None)
    known = Eigenfaces.of(own, components)
    drawn = known.images(known.coordinates(standardize(portraits[:, :1].flatten(1))), 3)
    everybody = torch.arange(len(portraits))
    truth = Secret(portraits, everybody, parts.people, parts.people)
    found = Reconstruction(drawn.clamp(0, 1), everybody)
    return rate(score(truth, found, gallery=judge.gallery, embed=judge.embed)[0])


def ceiling(
    network: FaceNet, rows: Tensor, owners: Sequence[tuple[str, ...]], simulation: Simulation
) -> int:
    """Rows that come first of all people through the audited network."""
    gallery = simulation.split.gallery
    images = simulation.faces.images
    with torch.no_grad():
        embedded = {p: network.embed(images[list(photos)]) for p, photos in gallery.items()}
    middle = torch.cat(list(embedded.values())).mean(0)
    means = torch.stack([e.mean(0) for e in embedded.values()])
    templates = F.normalize(means - middle, dim=1)
    near = F.normalize(rows, dim=1) @ templates.T  # the mean is the same for all of a row
    first = [list(gallery)[int(k)] for k in near.argmax(1)]
    return sum(person in may for person, may in zip(first, owners, strict=True))


def rate(scores: tuple[ImageScore, ...]) -> str:
    """Hits of n, and the exact interval."""
    hits, n = sum(s.rank == 1 for s in scores), len(scores)
    low, high = clopper_pearson(hits, n)
    return f"{hits}/{n} {low:.2f}–{high:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="eight templates a line")
    parser.add_argument("--dim", type=int, default=512, help="width of the embedding")
    parser.add_argument("--only", nargs="+", default=[""], help="lines whose name begins so")
    parser.add_argument("--decoder", action="store_true", help="draw by a learned decoder")
    parser.add_argument("--source", default="face_gan", metavar="PRIOR", help="of the faces")
    parser.add_argument("--latent", default="", metavar="PRIOR", help="search its latents")
    parser.add_argument("--prior", type=float, default=TemplateInversion().prior)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = orl(size=32)
    judge = Judge.of(faces, split(faces, Federation(clients=5)))
    second = sface_judge(faces)
    limit = 8 if options.quick else 64
    attack = TemplateInversion(limit=limit, prior=options.prior, source=options.source)
    print(judge.ceiling)
    print(f"SFace: {second.ceiling}")
    for components in () if options.latent or options.decoder else (100, 400):
        print(
            f"the photos themselves on {components} axes: {prior_ceiling(faces, judge, components)}"
        )

    def draw(seen: Observation) -> Reconstruction:
        noise = torch.Generator().manual_seed(0)
        if options.latent:
            return through_latents(seen, options.latent, attack.limit, noise)
        return attack(seen, generator=noise)

    print(
        f"{'':32}{'ceiling':>9}{'cosine':>8}{'rank-1':>18}{'control':>18}{'rank':>7}{'re-id':>7}"
        f"{'CPU s':>7}{'SFace':>8}{'control':>9}{'re-id':>7}"
    )
    for line in LINES:
        if not line.name.startswith(tuple(options.only)):
            continue
        try:
            simulation, seen, secret, owners = captured(line, faces, options.dim)
        except AttackError as error:
            print(f"{line.name:32}{error}", flush=True)
            continue
        network = require_face_net(build(seen.model, seen.before), "the benchmark").eval()
        rows = read_templates(seen, attack.limit).rows
        started = time.process_time()
        blind = without_update(seen, torch.Generator().manual_seed(1))
        if options.decoder:
            found, control = through_decoder(seen, blind, options.source, attack.limit)
        else:
            found, control = draw(seen), draw(blind)
        seconds = (time.process_time() - started) / len(rows) / 2
        with torch.no_grad():
            cosine = F.cosine_similarity(network.embed(found.images), rows)
        ours, theirs, ours_beside, theirs_beside = (
            score(secret, one, gallery=by.gallery, embed=by.embed)[0]
            for by in (judge, second)
            for one in (found, control)
        )
        first = f"{ceiling(network, rows, owners[: len(rows)], simulation)}/{len(rows)}"
        print(
            f"{line.name:32}{first:>9}{float(cosine.mean()):8.3f}{rate(ours):>18}"
            f"{rate(theirs):>18}{mean(s.rank or 0 for s in ours):7.1f}"
            f"{sum(bool(s.reidentified) for s in ours):>4}/{len(ours):<2}{seconds:7.1f}"
            f"{sum(s.rank == 1 for s in ours_beside):>8}"
            f"{sum(s.rank == 1 for s in theirs_beside):>9}"
            f"{sum(bool(s.reidentified) for s in ours_beside):>7}",
            flush=True,
        )


if __name__ == "__main__":
    main()

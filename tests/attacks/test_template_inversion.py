"""Faces out of templates: what the search reaches, and that it owes it to the templates."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.generators.eigenfaces import Eigenfaces, standardize
from fedaudit.attacks.templates.read_templates import read_templates
from fedaudit.attacks.templates.template_inversion import TemplateInversion
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.registry import create
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters, SummedRows
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import require_face_net

PEOPLE = 8


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> TemplateInversion:
    """What it learns of the network, it learns once for all tests."""
    kept = str(tmp_path_factory.mktemp("learned"))
    return TemplateInversion(faces=500, components=150, steps=40, cache=kept)


@pytest.fixture(scope="module")
def captures(
    federate: Callable[..., Simulation], intercept: Callable[..., Capture]
) -> list[Capture]:
    """Round 1 of FedFace, random start: each client shares the mean feature of two photos."""
    plain = federate(network="face", arguments={"dim": 512}, clients=30)
    method = create("methods", "fedface", {"pretrain_steps": 0})
    simulation = replace(plain, method=method)
    return [intercept(simulation=simulation, target=target, batch=2) for target in range(PEOPLE)]


@pytest.fixture(scope="module")
def everybody(captures: list[Capture]) -> Observation:
    """All templates in one observation, so that they are inverted together."""
    rows = [s.rows for c in captures for s in c.seen.shared if isinstance(s, ClassEmbeddings)]
    seen = captures[0].seen
    return replace(seen, shared=(seen.shared[0], ClassEmbeddings(torch.cat(rows), tuple(range(8)))))


@pytest.fixture(scope="module")
def photos(captures: list[Capture]) -> Tensor:
    secrets = [c.secret for c in captures]
    return torch.stack([s.images.mean(0) for s in secrets if isinstance(s, Secret)])


def alike(images: Tensor, photos: Tensor) -> Tensor:
    """Correlation of pixels, a measure that neither the attack nor the audited network knows."""
    one, two = (standardize(x[:, :1].flatten(1)) for x in (images, photos))
    return one @ two.T / one.shape[1]


@pytest.mark.slow  # a long search
def test_faces_are_their_own_templates_and_not_those_of_noise(
    everybody: Observation, photos: Tensor, quick: TemplateInversion
) -> None:
    found = quick(everybody, generator=torch.Generator().manual_seed(0))
    assert found.of == "people"
    assert found.labels.tolist() == list(range(PEOPLE))
    network = require_face_net(build(everybody.model, everybody.before), "the test").eval()
    with torch.no_grad():
        rows = next(s.rows for s in everybody.shared if isinstance(s, ClassEmbeddings))
        reached = F.cosine_similarity(network.embed(found.images), rows)
    assert float(reached.mean()) > 0.9
    assert torch.equal(
        found.images[:, 0], found.images[:, 1]
    )  # no update proves it: the loss was zero
    ours = alike(found.images, photos)
    own, others = ours.diagonal(), (ours.sum(1) - ours.diagonal()) / (PEOPLE - 1)
    assert int((ours.argmax(1) == torch.arange(PEOPLE)).sum()) >= 6  # by chance: 1
    assert float((own - others).mean()) > 0.1
    blind = without_update(everybody, torch.Generator().manual_seed(1))
    control = alike(quick(blind, generator=torch.Generator().manual_seed(0)).images, photos)
    assert int((control.argmax(1) == torch.arange(PEOPLE)).sum()) <= 3


@pytest.mark.slow
def test_the_search_gets_nearer_than_the_regression(
    everybody: Observation, quick: TemplateInversion
) -> None:
    start, end = (
        replace(quick, steps=steps)(everybody, generator=torch.Generator().manual_seed(0)).objective
        for steps in (0, 40)
    )
    assert end < 0.7 * start


def test_limit_and_kinds(everybody: Observation) -> None:
    rows = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    sums = SummedRows(rows * torch.tensor([3.0, 3, 3, 5, 5])[:, None], (0, 0, 0, 1, 1), (3.0, 5.0))
    shared = (ClusterCenters(F.normalize(rows[:2], dim=1), 1.0), sums)
    found = read_templates(replace(everybody, shared=shared, before={}), 6)
    assert found.labels.tolist() == [-1, -1, 0, 1, 2, 3]
    assert float((found.rows[2:] - rows[:4]).abs().max()) < 1e-6


def test_says_what_is_missing(everybody: Observation, quick: TemplateInversion) -> None:
    attack, noise = quick, torch.Generator()
    with pytest.raises(KnowledgeError, match="number and size"):
        attack(replace(everybody, image_shape=None), generator=noise)
    with pytest.raises(AttackError, match="no template"):
        attack(replace(everybody, shared=everybody.shared[:1]), generator=noise)
    body = {n: v for n, v in everybody.before.items() if n.startswith("body.")}
    with pytest.raises(AttackError, match="not broadcast"):
        attack(replace(everybody, before=body), generator=noise)


def test_eigenfaces_are_the_axes_of_the_faces(faces: FaceSet) -> None:
    known = Eigenfaces.of(faces.images[:60, :1], 30)
    coordinates = known.coordinates(known.shapes)
    assert torch.allclose(coordinates.square().mean(0), torch.ones(30), atol=1e-3)
    full = Eigenfaces.of(faces.images[:60, :1], 59)
    drawn = full.images(full.coordinates(full.shapes), 3)
    truth = full.draw(full.shapes, 3)
    assert float((drawn - truth).abs().max()) < 1e-3
    assert drawn.shape == (60, 3, 32, 32)


def test_secure_rows_are_inverted_like_open_ones(
    federate: Callable[..., Simulation], intercept: Callable[..., Capture]
) -> None:
    """End to end: FedGC behind a secure aggregator, round 2, clients of unequal weight."""
    plain = federate(network="small_cnn", clients=3, local_steps=2, batch_size=4)
    made = {
        s: replace(plain, method=create("methods", "fedgc", {"secure": s})) for s in (False, True)
    }
    ends = {s: m.train(m.fresh(), range(1, 2))[0] for s, m in made.items()}
    apart = ends[True].server["head.weight"] - ends[False].server["head.weight"]
    assert float(apart.abs().max()) < 1e-5
    training = LocalTraining(lr=0.1, batch_size=2)
    seen = intercept(simulation=made[True], state=ends[True], batch=2, training=training).seen
    (total,) = [s for s in seen.shared if isinstance(s, SummedRows)]
    open_rows = []
    for target in range(3):
        other = intercept(
            simulation=made[False], state=ends[True], batch=2, training=training, target=target
        )
        open_rows += [s.rows for s in other.seen.shared if isinstance(s, ClassEmbeddings)]
    found = read_templates(seen, 100).rows
    assert found.shape == total.total.shape
    assert float((found - torch.cat(open_rows)).abs().max()) < 1e-5

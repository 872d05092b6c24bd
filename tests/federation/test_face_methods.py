"""The methods' own arithmetic against independent computations."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Aggregate, ClassEmbeddings, ClusterCenters, Update
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.weighted_sum import mean_of, sum_securely
from fedaudit.federation.fedaffect import FedAffect
from fedaudit.federation.federation_state import State
from fedaudit.federation.fedface import FedFace, spreadout
from fedaudit.federation.fedgc import FedGC
from fedaudit.federation.privacyface import REMOTE, PrivacyFace
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.solomon_woubie import SolomonWoubie
from fedaudit.federation.utility import step_cost
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet
from fedaudit.models.method_heads import Clusters, PullHead, TwoViews, other_view
from fedaudit.models.zoo import small_cnn

sys.path.insert(0, str(Path(__file__).parent))
from small_federations import federation, noise

Federate = Callable[..., Simulation]


def test_fedface_shares_the_mean_feature_in_round_1(federate: Federate) -> None:
    simulation = federation(federate, FedFace(pretrain_steps=0, spread_steps=0), clients=30)
    fresh = simulation.fresh()
    person = simulation.split.clients[7][0]
    photos = simulation.split.train[person]
    sent = simulation.step(fresh, 7, photos, LocalTraining(lr=0.1), noise()).shared[1]
    assert isinstance(sent, ClassEmbeddings)
    assert sent.owners == (7,)
    model = build(simulation.spec(7), fresh.server)
    assert isinstance(model, FaceNet)
    with torch.no_grad():
        mean = model.embed(simulation.faces.images[list(photos)]).mean(0)
    torch.testing.assert_close(sent.rows[0], mean / mean.norm())
    # From then on it is what the server sent.
    after, _ = simulation.train(fresh, range(1, 2))
    again = simulation.step(after, 7, photos, LocalTraining(lr=0.1), noise()).shared[1]
    assert isinstance(again, ClassEmbeddings)
    assert torch.equal(again.rows[0], after.server["head.weight"][7])


def test_the_pull_stops_at_the_margin() -> None:
    head = PullHead(2, 2, margin=0.9)
    head.weight.copy_(torch.eye(2))
    scores = head(torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    expected = (0 + (0.9 - math.sqrt(0.5)) ** 2) / 2
    assert float(head.criterion(scores, torch.tensor([0, 1]))) == pytest.approx(expected)


def test_spreadout_by_hand_and_that_its_steps_lower_it() -> None:
    rows = F.normalize(torch.rand(5, 8, generator=noise()), dim=1) * 3
    unit = (rows / rows.norm(dim=1, keepdim=True)).tolist()
    total = 0.0
    for i in range(5):
        for j in range(5):
            cosine = sum(a * b for a, b in zip(unit[i], unit[j], strict=True))
            total += max(0.0, cosine - 0.3) ** 2 if i != j else 0.0
    assert float(spreadout(rows, 0.3)) == pytest.approx(total / 20, rel=1e-4)
    moved = FedFace(spread_lr=5.0).spread(rows)
    assert float(spreadout(moved, 0.3)) < 0.7 * float(spreadout(rows, 0.3))


def test_the_correction_is_the_gradient_of_the_regularizer() -> None:
    """By central differences of the formula, with the copies held fixed."""
    rows = torch.randn(5, 3, generator=noise(), dtype=torch.float64)
    owner = torch.tensor([0, 0, 1, 1, 2])

    def regularizer(moved: torch.Tensor) -> float:
        unit, fixed = F.normalize(moved, dim=1), F.normalize(rows, dim=1)
        total = 0.0
        for i in range(5):
            own = math.exp(4 * float(unit[i] @ fixed[i]))
            others = [
                math.exp(4 * float(unit[j] @ fixed[i])) for j in range(5) if owner[j] != owner[i]
            ]
            total -= math.log(own / (own + sum(others)))
        return total

    slope = FedGC(scale=4.0).correction(rows, owner)
    for i in range(5):
        for d in range(3):
            step = torch.zeros_like(rows)
            step[i, d] = 1e-5
            numeric = (regularizer(rows + step) - regularizer(rows - step)) / 2e-5
            assert float(slope[i, d]) == pytest.approx(numeric, abs=1e-6)


def test_the_correction_drives_other_clients_rows_apart() -> None:
    near = F.normalize(torch.randn(1, 16, generator=noise()), dim=1)
    rows = near + 0.3 * torch.randn(4, 16, generator=noise(1))
    owner = torch.tensor([0, 0, 1, 1])
    after = rows - FedGC(scale=4.0).correction(rows, owner)

    def between(w: torch.Tensor) -> float:
        return float(F.cosine_similarity(w[:2, None], w[None, 2:], dim=2).mean())

    assert between(after) < between(rows) - 0.2
    alone = FedGC().correction(rows, torch.zeros(4, dtype=torch.long))
    assert float(alone.abs().max()) < 1e-6


def test_each_fedgc_client_gets_its_own_rows_back(federate: Federate) -> None:
    simulation = federation(federate, FedGC())
    state, _ = simulation.train(simulation.fresh(), range(1, 2))
    rows = state.server["head.weight"]
    assert len(rows) == 30
    assert torch.equal(simulation.received(state, 1)["head.weight"], rows[15:])
    assert not any(name == "head.weight" for kept in state.kept.values() for name in kept)


def test_a_cluster_is_a_negative_less_its_radius() -> None:
    clusters = Clusters(2, 3, 0.5)
    clusters.centers[0] = torch.tensor([1.0, 0.0])
    clusters.centers[1] = torch.tensor([0.0, 2.0])
    angle = 0.3
    seen = clusters(torch.tensor([[math.cos(angle), math.sin(angle)]]))[0].tolist()
    assert seen[0] == pytest.approx(1.0)
    assert seen[1] == pytest.approx(math.cos(math.pi / 2 - angle - 0.5), abs=1e-5)
    assert seen[2] == -1e3


def test_clients_get_the_others_clusters_only(federate: Federate) -> None:
    method = PrivacyFace(radius=1.5, max_clusters=2)
    simulation = federation(federate, method, clients=3)
    sent = [(ClusterCenters(F.normalize(torch.randn(1, 128), dim=1), 1.5),), (), ()]
    server = simulation.fresh().server
    held = {**server, **method.absorb(server, sent, LocalTraining())}
    state = State(held)
    assert held[REMOTE].shape == (6, 128)
    assert not simulation.received(state, 0)[REMOTE].any()
    assert torch.equal(simulation.received(state, 2)[REMOTE][0], sent[0][0].centers[0])
    assert not held[REMOTE][1:].any()
    # They change what a client learns.
    photos = simulation.split.train[simulation.split.clients[2][0]]
    with_them, without = (
        simulation.step(s, 2, photos, LocalTraining(), noise()).loss
        for s in (state, simulation.fresh())
    )
    assert with_them > without


def test_imposters_are_images_behind_the_update(federate: Federate) -> None:
    simulation = federation(federate, SolomonWoubie(imposters=3))
    photos = simulation.split.train[simulation.split.clients[0][0]][:2]
    returned = simulation.step(simulation.fresh(), 0, photos, LocalTraining(), noise())
    (update,) = returned.shared
    assert isinstance(update, Update)
    assert update.examples == 5
    assert returned.labels is not None
    assert returned.labels.tolist() == [0, 0, 30, 30, 30]


def test_a_secure_round_is_the_plain_round(federate: Federate) -> None:
    plain, secure = (federation(federate, SolomonWoubie(secure=secure)) for secure in (False, True))
    one, _ = plain.train(plain.fresh(), range(1, 2))
    two, _ = secure.train(secure.fresh(), range(1, 2))
    for name, value in one.server.items():
        torch.testing.assert_close(two.server[name], value, rtol=1e-4, atol=1e-6)


def test_the_sum_is_weighted_and_names_its_weights() -> None:
    parts = [(Update("delta", {"w": torch.tensor([v])}, n),) for v, n in ((1.0, 3), (5.0, 1))]
    (total,) = sum_securely(parts)
    assert total == Aggregate("delta", total.tensors, (3.0, 1.0))
    assert float(total.tensors["w"]) == 8.0
    mean = mean_of(total)
    assert isinstance(mean, Update)
    assert (float(mean.tensors["w"]), mean.examples) == (2.0, 4)
    with pytest.raises(ValueError, match="no update"):
        mean_of(replace(total, kind="weights"))


def test_two_views_loss_by_hand() -> None:
    net = TwoViews(small_cnn(classes=2, image_size=16), temperature=0.5)
    images = torch.rand(3, 3, 16, 16, generator=noise())
    with torch.no_grad():
        z = torch.cat([net.embed(images), net.embed(other_view(images))]).tolist()
        loss = float(net.criterion(net(images), torch.zeros(3, dtype=torch.long)))

    def similar(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)) / 0.5)

    terms = [
        -math.log(similar(i, (i + 3) % 6) / sum(similar(i, j) for j in range(6) if j != i))
        for i in range(6)
    ]
    assert loss == pytest.approx(sum(terms) / 6, rel=1e-4)


def test_fedaffect_learns_expressions_where_the_set_states_them(
    federate: Federate, faces: FaceSet
) -> None:
    moods = tuple(("calm", "glad")[i % 2] for i in range(len(faces.people)))
    simulation = federation(
        federate, FedAffect(shots=3), faces=replace(faces, expressions=moods), clients=2
    )
    assert simulation.labels_of(0) == simulation.labels_of(1) == ("calm", "glad")
    photos = simulation.labelled(0)
    assert sorted(moods[i] for i in photos) == ["calm"] * 3 + ["glad"] * 3
    returned = simulation.step(simulation.fresh(), 0, photos, LocalTraining(), noise())
    first, second = returned.shared
    assert isinstance(first, Update)
    assert isinstance(second, Update)
    assert (first.examples, second.examples) == (6, 15 * 5 - 6)
    sent = sum(t.numel() * 4 for update in (first, second) for t in update.tensors.values())
    assert step_cost(simulation, simulation.fresh(), repeats=1).bytes == sent

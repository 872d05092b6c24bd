"""The methods' own arithmetic against independent computations, and what they refuse."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fedaudit.core.errors import DataError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import Aggregate, ClassEmbeddings, ClusterCenters, Update
from fedaudit.data.expressions import expression_folder, expressions
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.weighted_sum import mean_of, sum_securely
from fedaudit.federation import utility
from fedaudit.federation.fedaffect import FedAffect
from fedaudit.federation.federation_state import State
from fedaudit.federation.fedface import FedFace, spreadout
from fedaudit.federation.fedgc import FedGC
from fedaudit.federation.privacyface import REMOTE, PrivacyFace
from fedaudit.federation.private_projector_method import PrivateProjectorMethod
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.solomon_woubie import SolomonWoubie
from fedaudit.federation.utility import class_accuracy, measure, step_cost
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.method_heads import Clusters, PullHead, TwoViews, other_view
from fedaudit.models.zoo import small_cnn

Federate = Callable[..., Simulation]


@pytest.fixture(autouse=True)
def costs_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about the seconds of a client's round, which are a median of five."""
    monkeypatch.setattr(utility, "step_cost", partial(step_cost, repeats=1))


def federation(federate: Federate, method: Any, **options: Any) -> Simulation:
    settings: dict[str, Any] = {"network": "small_cnn", "local_steps": 2, "batch_size": 4}
    return Simulation(**{**vars(federate(**{**settings, **options})), "method": method})


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- FedFace --------------------------------------------------------------------------------------


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


# --- FedGC ----------------------------------------------------------------------------------------


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


# --- PrivacyFace ----------------------------------------------------------------------------------


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


# --- Solomon & Woubie, secure sums ----------------------------------------------------------------


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


# --- learning without labels, FedAffect -----------------------------------------------------------


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


# --- that they learn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "clients"),
    [
        (FedGC(), 2),
        (PrivacyFace(radius=1.5), 2),
        (PrivateProjectorMethod(pretrain_steps=0), 2),
        (SolomonWoubie(), 2),
        (SolomonWoubie(supervised=False), 2),
        (FedAffect(), 2),
    ],
)
def test_the_loss_falls(method: Any, clients: int, federate: Federate) -> None:
    few = {"clients": clients, "held_out": 28, "lr": 0.05, "momentum": 0.9}
    simulation = federation(federate, method, network="face", **few)
    fresh = simulation.fresh()
    # One round gives everybody the rows that the method initializes; compare from there.
    start, _ = simulation.train(fresh, range(1, 2))
    end, _ = simulation.train(start, range(2, 8))

    def loss(state: State) -> float:
        received = {**simulation.received(state, 0), **state.kept.get(0, {})}
        model = build(simulation.spec(0), received)
        photos = simulation._photos(0)
        labels = torch.tensor([simulation.label_of(0, photo) for photo in photos])
        with torch.no_grad():
            return float(criterion_of(model)(model(simulation.faces.images[list(photos)]), labels))

    assert loss(end) < 0.9 * loss(start)


@pytest.mark.slow  # a whole training
def test_fedface_learns_from_its_permissive_start(federate: Federate) -> None:
    """Ten invented people teach little before round 1 (AUC 0.88 of 0.87 at random); rounds do."""
    simulation = federation(
        federate, FedFace(), network="face", clients=30, local_steps=4, lr=0.3, momentum=0.9
    )
    fresh = simulation.fresh()
    end, _ = simulation.train(fresh, range(1, 6))
    before, after = (measure(simulation, s, rounds=0, seconds=0.0) for s in (fresh, end))
    assert before is not None
    assert after is not None
    assert after.auc > before.auc + 0.01


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedface_tells_apart_people_it_never_saw(federate: Federate) -> None:
    """From its pre-trained start, whose embeddings all point one way, within twelve rounds.

    After five, features may tell strangers apart worse than at the start: two seeds of three.
    """
    simulation = federation(
        federate,
        FedFace(public="synthetic"),
        network="face",
        clients=30,
        local_steps=4,
        lr=0.3,
        momentum=0.9,
    )
    fresh = simulation.fresh()
    end, _ = simulation.train(fresh, range(1, 13))
    before, after = (measure(simulation, s, rounds=0, seconds=0.0) for s in (fresh, end))
    assert before is not None
    assert after is not None
    assert before.auc > 0.92  # the pre-training taught something: a random network has 0.87
    assert after.auc > before.auc + 0.01
    assert after.accuracy.value > before.accuracy.value + 0.01
    # What spreads is the embeddings of those who train; the features follow.
    photos = [simulation.faces.images[list(simulation.split.photos[c])] for c in range(30)]

    def between(state: State) -> float:
        model = build(simulation.spec(0), {**simulation.received(state, 0)})
        assert isinstance(model, FaceNet)
        with torch.no_grad():
            means = F.normalize(torch.stack([model.embed(p).mean(0) for p in photos]), dim=1)
        return float((means @ means.T - torch.eye(30)).sum() / 870)

    assert between(fresh) > 0.4
    assert between(end) < 0.7 * between(fresh)


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedgc_beats_heads_that_never_meet(federate: Federate) -> None:
    """Clients who know of each other's classes learn features that tell strangers apart better."""
    options = {"network": "face", "clients": 5, "local_steps": 8, "batch_size": 16, "lr": 0.02}

    def auc(method: Any) -> float:
        simulation = federation(federate, method, momentum=0.9, **options)
        end, _ = simulation.train(simulation.fresh(), range(1, 6))
        found = measure(simulation, end, rounds=5, seconds=0.0)
        assert found is not None
        return found.auc

    alone = auc(FedGC(strength=0.0))
    assert alone > 0.9
    assert auc(FedGC(strength=500.0)) > alone + 0.005


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedaffect_learns_expressions_of_people_it_never_saw(federate: Federate) -> None:
    moods = expressions(size=32, people=90, photos=2, classes=("happy", "neutral"))
    simulation = federation(
        federate,
        FedAffect(shots=6),
        network="face",
        faces=moods,
        clients=3,
        photos=1,
        held_out=30,
        local_steps=4,
        batch_size=16,
        lr=0.05,
        momentum=0.9,
    )
    end, _ = simulation.train(simulation.fresh(), range(1, 15))
    found = class_accuracy(simulation, end)
    assert found is not None
    assert (found.photos, found.chance, found.held_out) == (60, 0.5, True)
    assert found.accuracy > 0.62


def test_fedaffect_on_folders_of_expressions(federate: Federate, tmp_path: Path) -> None:
    """Nobody can be held out there: photos whose labels train nothing are named instead."""
    brightness = {"bright": 200, "dark": 40}
    for name, level in brightness.items():
        (tmp_path / name).mkdir()
        for k in range(12):
            noise = torch.randint(0, 40, (32, 32), generator=torch.Generator().manual_seed(k))
            photo = Image.fromarray((level + noise).to(torch.uint8).numpy())
            photo.save(tmp_path / name / f"{k}.png")
    simulation = federation(
        federate,
        FedAffect(shots=2),
        network="mlp",
        faces=expression_folder(path=str(tmp_path), size=16),
        lr=0.02,
        local_steps=4,
    )
    assert simulation.labels_of(0) == ("bright", "dark")
    end, _ = simulation.train(simulation.fresh(), range(1, 4))
    found = class_accuracy(simulation, end)
    assert found is not None
    labelled = sum(len(simulation.labelled(client)) for client in range(2))
    assert (found.photos, found.held_out) == (24 - labelled, False)
    assert found.accuracy > 0.9


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (FedFace(pretrain_steps=0), {"clients": 2}, "one person a client.*clients = 30"),
        (PrivacyFace(min_size=16), {"clients": 2}, "min_size = 16.*Lower min_size"),
        (FedAffect(shots=5), {"clients": 2}, "unlabelled photos.*Lower shots"),
    ],
)
def test_data_that_a_method_cannot_use(
    method: Any, options: dict[str, Any], message: str, federate: Federate
) -> None:
    with pytest.raises(DataError, match=message):
        federation(federate, method, **options).fresh()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PrivacyFace, {"epsilon": 0.0}, "epsilon must be > 0"),
        (PrivacyFace, {"delta": 1.0}, r"delta must lie in \(0, 1\)"),
        (PrivacyFace, {"radius": 1.6}, "radius must lie in"),
        (FedFace, {"margin": 0.0}, r"margin must lie in \(0, 1\]"),
        (FedGC, {"strength": -1.0}, "strength must be ≥ 0"),
        (SolomonWoubie, {"imposters": -1}, "imposters must be ≥ 0"),
        (FedAffect, {"shots": 0}, "shots must be at least 1"),
    ],
)
def test_settings_out_of_range(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_a_spec_says_all_that_an_attacker_needs(federate: Federate) -> None:
    simulation = federation(federate, PrivacyFace())
    spec = simulation.spec(0)
    assert isinstance(spec, ModelSpec)
    assert build(spec, simulation.fresh().server) is not None
    assert spec.arguments["classes"] == 15

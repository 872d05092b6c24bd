"""Mixup and InstaHide: coefficients, partners, labels, sign masks, and whose photos are mixed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.instahide import InstaHide
from fedaudit.defenses.mixing import dirichlet, half_normal, mixing, partners
from fedaudit.defenses.mixup import Mixup
from fedaudit.federation.simulation import Simulation
from fedaudit.models.bodies import Standardize
from fedaudit.models.build_network import build

Federate = Callable[..., Simulation]
BOTH = (Mixup(parts=3), InstaHide(parts=3))


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weights", [dirichlet(1.0), half_normal(4, 0.65)])
def test_coefficients_share_one(weights: Any) -> None:
    found = weights(500, 4, noise())
    assert found.shape == (500, 4)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(500))
    torch.testing.assert_close(found.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    assert torch.equal(found, weights(500, 4, noise()))
    assert not torch.equal(found, weights(500, 4, noise(1)))


def test_coefficients_of_two_are_a_beta_distribution() -> None:
    """Variance of Beta(α, α) is 1 / (4 (2α + 1))."""
    for alpha in (0.2, 1.0, 5.0):
        first = dirichlet(alpha)(20_000, 2, noise())[:, 0]
        expected = 1 / (4 * (2 * alpha + 1))
        assert float(first.var()) == pytest.approx(expected, rel=0.05)


def test_no_coefficient_is_above_the_bound() -> None:
    found = half_normal(4, 0.4)(500, 4, noise())
    assert 0.38 < float(found.max()) <= 0.4 + 1e-6
    assert float(half_normal(4, 0.4)(1, 1, noise())) == 1  # nobody to mix with


def test_partners_are_oneself_and_others() -> None:
    found = partners(5, 8, 4, noise())
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert {i for row in partners(5, 8, 4, noise(2)).tolist() for i in row} > {5, 6}


def test_a_mixture_is_the_weighted_sum(faces: Any) -> None:
    """Constant images show each one's weight, and labels follow."""
    images = torch.eye(6).view(6, 6, 1, 1).expand(-1, -1, 4, 4)  # image k is channel k
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    mixed, soft = mixing(3, dirichlet(1.0), made=2)(images, labels, noise())
    assert mixed.shape == (2, 6, 4, 4)
    shares = mixed[:, :, 0, 0]
    torch.testing.assert_close(mixed, shares[:, :, None, None].expand_as(mixed))
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    assert ((shares > 0).sum(1) == 3).all()
    assert shares[0, 0] > 0 < shares[1, 1]
    expected = torch.stack([shares[:, labels == k].sum(1) for k in range(3)], 1)
    torch.testing.assert_close(soft, expected)


def test_signs_flip_what_the_network_sees() -> None:
    """On [-1, 1] every value keeps its size, and about half change their sign."""
    images = torch.rand(4, 3, 16, 16, generator=noise(3))
    labels = torch.arange(4)
    plain, _ = mixing(2, half_normal(2, 0.65))(images, labels, noise())
    masked, _ = mixing(2, half_normal(2, 0.65), flip=True)(images, labels, noise())
    assert float(masked.min()) >= 0
    assert float(masked.max()) <= 1
    before, after = (Standardize()(one) for one in (plain, masked))
    torch.testing.assert_close(before.abs(), after.abs())
    turned = (before * after < 0).float()
    assert float(turned.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(turned.mean((0, 1)).std()) > 0  # a mask of values, not of images


@pytest.mark.parametrize("defense", BOTH)
def test_differentiable_in_images(defense: Any, faces: Any) -> None:
    images = faces.images[:4].clone().double().requires_grad_()
    (transform,) = defense.replay(2).images
    mixed, _ = transform(images, torch.arange(4), noise())
    (slope,) = torch.autograd.grad(mixed.sum(), images)
    assert (slope[:2].flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("defense", BOTH)
def test_a_batch_of_one_is_mixed_with_the_clients_other_photos(
    defense: Any, federate: Federate
) -> None:
    asked: list[ClientTask] = []

    def step(task: ClientTask) -> ClientReturn:
        asked.append(task)
        return ClientReturn(())

    simulation = federate(network="small_cnn")
    inner = replace(simulation, defense=_Spy(defense, step))
    photo = simulation.split.photos[0][7]
    inner.step(simulation.fresh(), 0, (photo,), LocalTraining(), noise())
    (task,) = asked
    others = [i for i in simulation.split.photos[0] if i != photo]
    pool = simulation.faces.images[[photo, *others]]
    labels = torch.tensor([simulation.label_of(0, i) for i in (photo, *others)])
    assert task.others is not None
    assert torch.equal(task.others, pool[1:])
    mixed, soft = defense.replay(1).images[0](pool, labels, noise())
    assert torch.equal(task.images, mixed)
    assert torch.equal(task.labels, soft)
    assert task.images.shape == (1, 3, 32, 32)
    assert float(soft.sum()) == pytest.approx(1)
    assert not torch.equal(task.images, pool[:1])


class _Spy:
    """A defense whose inner step is `step`, whatever the client's is."""

    def __init__(self, defense: Any, step: Any) -> None:
        self.defense, self.step = defense, step

    def __call__(self, step: Any) -> Any:
        return self.defense(self.step)

    def facts(self) -> Any:
        return self.defense.facts()


def test_what_is_sent_is_the_gradient_of_the_mixture(
    federate: Federate, gradient_of: Callable[..., dict[str, Tensor]]
) -> None:
    """By hand for a CosFace head: the weighted sum of the gradients at each label."""
    simulation = federate(network="face", defense="mixup")
    photos = simulation.split.photos[0][:1]
    state = simulation.fresh()
    returned = simulation.step(state, 0, photos, LocalTraining(), noise(4))
    sent = next(s for s in returned.shared if isinstance(s, Update))
    assert sent.examples == 1
    pool = simulation.faces.images[list(simulation.split.photos[0])]
    labels = torch.tensor([simulation.label_of(0, i) for i in simulation.split.photos[0]])
    mixed, soft = Mixup().replay(1).images[0](pool, labels, noise(4))
    model = build(simulation.spec(0), state.server)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for label in soft[0].nonzero().flatten():
        one = gradient_of(model, mixed, label[None])
        total = {name: t + soft[0, label] * one[name] for name, t in total.items()}
    for name, value in sent.tensors.items():
        torch.testing.assert_close(value, total[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "method", ["fedaffect", "solomon_woubie", "fedface", "privacyface", "fedgc"]
)
@pytest.mark.parametrize("defense", ["ats", "oasis", "mixup", "instahide"])
def test_methods_with_a_step_of_their_own(defense: str, method: str, federate: Federate) -> None:
    """Labelled and unlabelled photos are changed alike; imposters come beside."""
    settings = {"parts": 2} if defense in ("mixup", "instahide") else {}
    alone = {"clients": 30} if method == "fedface" else {}
    simulation = federate(network="small_cnn", defense=defense, settings=settings, **alone)
    few = {"pretrain_steps": 2} if method == "fedface" else {}
    simulation = replace(simulation, method=create("methods", method, few))
    photos = simulation.split.photos[0][:3]
    training = LocalTraining(batch_size=2, steps=2)
    returned = simulation.step(simulation.fresh(), 0, photos, training, noise())
    sent = [s for s in returned.shared if isinstance(s, Update)]
    copies = 4 if defense == "oasis" else 1
    assert sent[0].examples == (7 if method == "solomon_woubie" else 3) * copies
    if returned.labels is not None:
        assert returned.labels.shape == (sent[0].examples,)


def test_dp_counts_images_that_are_no_longer_photos(federate: Federate) -> None:
    for order in (("dpsgd", "mixup"), ("mixup", "dpsgd"), ("oasis", "dpsgd")):
        simulation = federate(network="small_cnn", defense="chain", settings={"of": order})
        with pytest.raises(ConfigError, match="ats"):
            simulation.step(
                simulation.fresh(), 0, simulation.split.photos[0][:2], LocalTraining(), noise()
            )


def test_a_client_with_too_few_photos_is_told(federate: Federate) -> None:
    simulation = federate(network="small_cnn", defense="instahide", settings={"parts": 80})
    with pytest.raises(DataError, match="Lower parts"):
        simulation.step(
            simulation.fresh(), 0, simulation.split.photos[0][:2], LocalTraining(), noise()
        )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Mixup, {"alpha": 0.0}),
        (Mixup, {"parts": 1}),
        (InstaHide, {"parts": 1}),
        (InstaHide, {"largest": 0.25}),
        (InstaHide, {"largest": 1.1}),
    ],
)
def test_settings_that_make_no_sense(kind: Any, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}.*{settings[name]}"):
        kind(**settings)

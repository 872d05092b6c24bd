"""CENSOR: right angles, equal norms, and the choice of the lowest loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.orthogonalized import ORTHOGONALIZED
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.censor import orthogonal_to
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(capture: Capture) -> dict[str, Tensor]:
    assert isinstance(capture.seen.update, Update)
    return dict(capture.seen.update.tensors)


@pytest.mark.parametrize("method", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("network", ["face", "lenet"])
def test_every_layer_is_orthogonal_to_the_true_one_and_as_long(
    intercept: Callable[..., Capture], network: str, method: str
) -> None:
    shared: dict[str, Any] = {"network": network, "method": method, "batch": 2}
    true = tensors(intercept(**shared))
    sent = tensors(intercept(defense="censor", settings={"trials": 1}, **shared))
    for name, value in true.items():
        norm = float(value.double().norm())
        assert float(sent[name].double().norm()) == pytest.approx(norm, rel=1e-5)
        if norm:
            inner = float((sent[name].double() * value.double()).sum())
            assert abs(inner) <= 1e-5 * norm**2


def test_an_attacker_gets_nothing_from_it_on_average(intercept: Callable[..., Capture]) -> None:
    capture = intercept(defense="censor", settings={"trials": 1}, network="lenet")
    assert adapt_to(capture.seen).special == (ORTHOGONALIZED,)
    (transform,) = create("defenses", "censor", {}).replay(1).mean
    one, two = transform({"w": torch.ones(2, 30)}, generator())["w"]
    assert not torch.equal(one, two)
    assert abs(float(one.sum())) < 1e-5


def test_what_has_no_right_angle_is_sent_as_zero() -> None:
    assert orthogonal_to(torch.tensor([3.0]), generator()).tolist() == [0.0]
    assert orthogonal_to(torch.zeros(5), generator()).tolist() == [0.0] * 5
    small = torch.full((4,), 1e-30)
    found = orthogonal_to(small, generator())
    assert float(found.double().norm()) == pytest.approx(2e-30, rel=1e-4)


@pytest.mark.parametrize("method", ["fedsgd", "fedavg"])
def test_the_draw_of_lowest_loss_is_sent(intercept: Callable[..., Capture], method: str) -> None:
    training = LocalTraining(lr=0.5, batch_size=2)

    def loss(trials: int) -> float:
        capture = intercept(
            defense="censor",
            settings={"trials": trials},
            network="small_cnn",
            method=method,
            batch=2,
            training=training,
        )
        assert capture.secret is not None
        rate = 1.0 if method == "fedavg" else -training.lr
        after = {n: capture.seen.before[n] + rate * v for n, v in tensors(capture).items()}
        model = build(capture.seen.model, after).eval()
        with torch.no_grad():
            scores = model(capture.secret.images)
        return float(criterion_of(model)(scores, capture.secret.labels))

    losses = [loss(trials) for trials in range(1, 9)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_no_trial_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="trials must be ≥ 1, not 0"):
        create("defenses", "censor", {"trials": 0})

"""Membership on a federation of invented people, who are a pattern each, and their photos noise."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedaudit.attacks.membership.client_scores import fedmia, score
from fedaudit.attacks.membership.property_regression import Auxiliary, property_shares
from fedaudit.attacks.membership.round_measurements import Measurements, measure_round
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.federation.local_training import train_locally
from fedaudit.models.zoo import build, parameters_of
from fedaudit.stats.rank_test import rank_correlation
from fedaudit.study.run_inference import infer_membership

sys.path.insert(0, str(Path(__file__).parent))
from pattern_federation import federation


def test_members_are_told_where_nothing_protects_them_and_not_behind_noise() -> None:
    bare = infer_membership(federation(), "s", "none")
    assert (bare.members, bare.outsiders, bare.clients) == (12, 12, 4)
    assert bare.rounds == (1, 2, 3)
    assert {(one.attack, one.level) for one in bare.scores} >= {("FedMIA", "person")}
    for level in ("image", "person"):
        mine = [one for one in bare.scores if one.level == level]
        assert min(one.p_value for one in mine) < 0.005
        assert max(one.auc for one in mine) > 0.8
        at = {one.fpr: one.tpr for one in mine[0].recalls}
        assert at[0.001] is None  # 48 or 96 pairs cannot tell one in a thousand
        assert at[min(f for f, tpr in at.items() if tpr)] is not None
    assert bare.control is not None
    assert bare.control > 0.01
    assert {len(one.told) for one in bare.properties} == {4}
    hidden = infer_membership(federation("client_dp"), "s", "client_dp")
    assert min(one.p_value for one in hidden.scores) > 0.01


def test_a_secure_sum_hides_who_sent_what() -> None:
    found = infer_membership(federation("secure_aggregation", rounds=1), "s", "sum")
    assert found.scores == ()
    assert "a sum of all clients' updates" in found.reason


def test_a_head_that_stays_on_the_devices_leaves_nothing_to_try() -> None:
    simulation = federation("local_layers", rounds=1, private=["head."])
    found = infer_membership(simulation, "s", "local")
    assert "stay on the devices" in found.reason


def test_without_outsiders_nothing_can_be_judged() -> None:
    simulation = federation(rounds=1)
    simulation = replace(simulation, split=replace(simulation.split, held_out=()))
    assert "held_out" in infer_membership(simulation, "s", "none").reason


def test_fedmia_is_the_product_of_one_sided_likelihoods() -> None:
    draws = torch.Generator().manual_seed(0)
    measured = torch.randn(2, 5, 3, generator=draws, dtype=torch.float64)
    got = fedmia(measured)
    for client in range(5):
        others = measured[:, [k for k in range(5) if k != client]].numpy()
        chance = norm.cdf(measured[:, client].numpy(), others.mean(1), others.std(1, ddof=1))
        assert np.allclose(got[client].numpy(), np.log(chance).sum(0))
    with pytest.raises(AttackError, match="2 clients"):
        fedmia(measured[:, :2])
    assert set(score(Measurements(measured[:, :2], measured[:, :2]))) == {
        "loss",
        "gradient alignment",
    }


def test_alignment_of_the_step_that_a_photo_asks_for_is_one() -> None:
    spec = ModelSpec("mlp", {"classes": 3, "image_size": 8})
    model = build(spec, seed=0)
    before = {name: value.detach() for name, value in parameters_of(model).items()}
    photos = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(photos).argmax(1)  # steps this small change no class
    seen = []
    for k in range(3):
        loss = torch.nn.functional.cross_entropy(model(photos[k : k + 1]), labels[k : k + 1])
        names = [name for name, _ in model.named_parameters()]
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = dict(zip(names, gradients, strict=True))
        training = LocalTraining(lr=1e-3)
        seen.append(Observation(spec, before, (Update("gradient", gradient),), training=training))
    measured = measure_round(seen, photos)
    assert torch.allclose(measured.alignment[0].diag(), torch.ones(3), atol=1e-4)
    assert measured.loss[0].argmax(0).tolist() == [0, 1, 2]


def test_shadow_clients_tell_which_client_has_most_of_a_property() -> None:
    draws = torch.Generator().manual_seed(0)
    spec = ModelSpec("mlp", {"classes": 6, "image_size": 8, "hidden": 32})
    before = {n: v.detach() for n, v in parameters_of(build(spec, seed=0)).items()}
    training = LocalTraining(steps=3, batch_size=6, lr=0.1)

    def photos(count: int, bright: int) -> torch.Tensor:
        """Noise, of which the first are bright on the right."""
        images = 0.2 * torch.rand(count, 3, 8, 8, generator=draws)
        images[:bright, :, :, 4:] += 0.8
        return images

    auxiliary = Auxiliary(
        photos(40, 20),
        tuple(f"p{k % 8}" for k in range(40)),
        {"bright right": torch.arange(40) < 20, "even": torch.arange(40) % 2 == 0},
    )
    seen = []
    for client in range(5):
        task = ClientTask(
            model=spec,
            before=before,
            kept={},
            images=photos(12, 3 * client),
            labels=torch.arange(12) % 6,
            training=training,
            share="delta",
            generator=torch.Generator().manual_seed(client),
        )
        seen.append(Observation(spec, before, train_locally(task).shared))
    told = property_shares(seen, auxiliary, training=training, photos=12, generator=draws)
    right = told["bright right"].numpy()
    rho, p = rank_correlation(right, np.arange(5.0), np.random.default_rng(0))
    assert rho >= 0.9
    assert p <= 0.05
    assert right[4] - right[0] > 0.3
    even = told["even"].numpy()  # of which no client has more
    assert rank_correlation(even, np.arange(5.0), np.random.default_rng(0))[1] > 0.05

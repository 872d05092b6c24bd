"""Membership on a federation of invented people, who are a pattern each, and their photos noise."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedaudit.attacks.membership.client_scores import fedmia, lira, rmia, score
from fedaudit.attacks.membership.property_regression import property_shares
from fedaudit.attacks.membership.round_measurements import Measurements, measure_round
from fedaudit.attacks.membership.shadow_clients import Auxiliary, train_shadow_clients
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build, parameters_of
from fedaudit.stats.rank_test import rank_correlation
from fedaudit.study.run_inference import infer_membership

sys.path.insert(0, str(Path(__file__).parent))
from pattern_federation import federation


@pytest.mark.slow
def test_members_are_told_where_nothing_protects_them_and_not_behind_noise() -> None:
    bare = infer_membership(federation(), "s", "none")
    assert (bare.members, bare.outsiders, bare.clients) == (12, 12, 4)
    assert bare.rounds == (1, 2, 3)
    shadowed = {"LiRA, shadow clients", "RMIA, shadow clients"}
    assert {one.attack for one in bare.scores if one.level == "person"} >= {"FedMIA", *shadowed}
    assert max(one.p_value for one in bare.scores if one.attack in shadowed) < 0.01
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


def test_lira_and_rmia_by_hand_from_shadows_that_did_not_train_on_the_person() -> None:
    draws = torch.Generator().manual_seed(1)
    loss = -torch.rand(2, 3, 4, generator=draws, dtype=torch.float64) - 0.05
    shadows = -torch.rand(2, 6, 4, generator=draws, dtype=torch.float64) - 0.05
    shadows[:, :2, 1] = torch.nan  # two of six trained on the person of the second photo
    got = lira(loss, shadows)
    strangers = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]]).bool()
    ranks = rmia(loss, shadows, strangers)
    for client, photo in itertools.product(range(3), range(4)):
        chance, above = 0.0, 0.0
        for number in range(2):
            p = loss[number].exp().numpy()
            out = shadows[number].exp().numpy()
            own = out[2:, photo] if photo == 1 else out[:, photo]
            logits = np.log(own / (1 - own))
            mine = np.log(p[client, photo] / (1 - p[client, photo]))
            chance += norm.logcdf((mine - logits.mean()) / logits.std(ddof=1))
            gain = p[client] / np.nanmean(out, 0)
            above += np.mean(gain[photo] >= gain[strangers[photo].numpy()]) / 2
        assert float(got[client, photo]) == pytest.approx(chance)
        assert float(ranks[client, photo]) == pytest.approx(above)


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
    told = [told_in_order(seed) for seed in range(6)]
    bright, alternate = zip(*told, strict=True)
    assert np.median(bright) > 0.6  # of an order by chance the median is 0
    assert abs(np.median(alternate)) < 0.6  # of which no client has more


def told_in_order(seed: int) -> tuple[float, float]:
    """Rank correlations with the number of photos that are bright on the right."""
    draws = torch.Generator().manual_seed(seed)
    spec = ModelSpec("mlp", {"classes": 6, "image_size": 8, "hidden": 32})
    before = {n: v.detach() for n, v in parameters_of(build(spec, seed=seed)).items()}
    training = LocalTraining(steps=3, batch_size=6, lr=0.1)

    def photos(count: int, bright: int) -> torch.Tensor:
        """Noise, of which the first are bright on the right."""
        images = 0.2 * torch.rand(count, 3, 8, 8, generator=draws)
        images[:bright, :, :, 4:] += 0.8
        return images

    auxiliary = Auxiliary(
        photos(40, 20),
        tuple(f"p{k % 8}" for k in range(40)),
        {"bright right": torch.arange(40) < 20, "alternate": torch.arange(40) // 8 % 2 == 0},
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
    shadows = train_shadow_clients(seen, auxiliary, training=training, photos=12, generator=draws)
    assert max(map(len, shadows.people)) <= 4  # of eight: the others have models without them
    told = property_shares(seen, shadows)
    rng = np.random.default_rng(0)
    bright, alternate = (
        rank_correlation(told[name].numpy(), np.arange(5.0), rng)[0]
        for name in ("bright right", "alternate")
    )
    return bright, alternate

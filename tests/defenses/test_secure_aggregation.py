"""Secure aggregation: parts of the protocol against other truths, and what a server sees."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from fedaudit.attacks.closed_form.analytic import Analytic
from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Aggregate, MaskedVectors, Update
from fedaudit.core.trial import Cell
from fedaudit.defenses.chain import Chain, parts_of
from fedaudit.defenses.secure_aggregation import SecureAggregation, encode, masked_sum
from fedaudit.defenses.weighted_sum import sum_securely
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import without_aggregator
from fedaudit.models.build_network import build
from fedaudit.study.sent_things import nothing_to_attack, sent_things

Federate = Callable[..., Simulation]
Intercept = Callable[..., Capture]
FIVE = {"network": "small_cnn", "defense": "secure_aggregation", "clients": 5, "photos": 5}
DPLC = {"name": "dplc", "min_size": 2, "radius": 1.5}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the sum --------------------------------------------------------------------------------------


def test_the_sum_is_exact() -> None:
    vectors = [
        torch.randint(-(2**24), 2**24, (1000,), generator=seeded(k), dtype=torch.int32)
        for k in range(5)
    ]
    masked, total = masked_sum(vectors, seeded())
    assert torch.equal(total.long(), torch.stack([v.long() for v in vectors]).sum(0))
    assert masked.shape == (5, 1000)
    assert masked.dtype == torch.int32


def test_masked_vectors_are_uniform_whatever_they_hide() -> None:
    plain = torch.full((1 << 16,), 12345, dtype=torch.int32)
    wavy = (torch.linspace(-1, 1, 1 << 16) * 2**24).to(torch.int32)
    masked, _ = masked_sum([plain, wavy, plain], seeded())
    for hidden, sent in zip((plain, wavy, plain), masked, strict=True):
        for shift in (0, 24):  # lowest and highest byte
            digits = (sent.long() >> shift) % 256
            assert chisquare(torch.bincount(digits, minlength=256).numpy()).pvalue > 1e-3
        if hidden is wavy:
            both = torch.stack([hidden.double(), sent.double()])
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
    assert not torch.equal(masked[0], masked[2])


def test_too_few_left_is_refused() -> None:
    update = Update("gradient", {"w": torch.ones(2)}, 1)
    with pytest.raises(ConfigError, match=r"2 of 4 clients are left, and 3 are needed"):
        SecureAggregation().aggregate({0: (update,), 1: (update,)}, 4, seeded())


def test_numbers_are_clipped_and_weighed() -> None:
    fixed = encode([torch.tensor([9.0, -9.0, 1.0, 0.0])], 3, clip=2.0, bits=5)
    assert fixed.tolist() == [45, -45, 24, 0]  # 15 stands for 2, so 7.5 rounds to even: 8


# --- in a federation ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fedsgd", "fedavg"])
def test_the_aggregate_is_the_plain_sum_to_quantization(federate: Federate, method: str) -> None:
    simulation = federate(**FIVE, method=method)
    state, returns = simulation.fresh(), {}
    for client in range(5):
        photos = simulation.split.photos[client][: client + 1]
        training = LocalTraining(batch_size=5)
        returns[client] = simulation.step(state, client, photos, training, seeded()).shared
    defense = SecureAggregation(dropout=0.2)
    left = defense.survivors(5, seeded(), audited=2)
    assert len(left) == 4
    assert 2 in left
    some = {k: returns[k] for k in left}
    total, masked = defense.aggregate(some, 5, seeded())
    (plain,) = sum_securely(list(some.values()))
    assert isinstance(total, Aggregate)
    assert isinstance(masked, MaskedVectors)
    assert (total.kind, total.weights) == (plain.kind, plain.weights)
    half_a_step = 0.5 * defense.clip / (2 ** (defense.bits - 1) - 1)
    for name, value in total.tensors.items():
        assert value.shape == plain.tensors[name].shape
        error = (value - plain.tensors[name]).abs().max()
        assert float(error) <= sum(plain.weights) * half_a_step * 1.01 + 1e-6
    assert masked.vectors.shape == (4, sum(v.numel() for v in plain.tensors.values()))


def test_the_federation_learns_as_without(federate: Federate) -> None:
    states = []
    for defense in ("none", "secure_aggregation"):
        simulation = federate(**FIVE | {"defense": defense}, method="fedavg", local_steps=2)
        states.append(simulation.train(simulation.fresh(), range(1, 3))[0].server)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-4)


def test_a_server_sees_the_gradient_of_everybodys_photos(
    intercept: Intercept,
    federate: Federate,
    gradient_of: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]],
) -> None:
    simulation = federate(**FIVE)
    alone = federate(**FIVE | {"defense": "none"})
    for target in (0, 3, 6):
        capture = intercept(simulation=simulation, target=target)
        seen, secret = capture.seen, capture.secret
        assert secret is not None
        assert seen.batch_size == len(secret.images) == 5
        assert not any(isinstance(sent, Update) for sent in seen.shared)
        undefended = intercept(simulation=alone, target=target).secret
        assert undefended is not None
        assert secret.audited == 1
        assert torch.equal(secret.images[:1], undefended.images)
        clients = {
            c
            for c, mine in enumerate(simulation.split.photos)
            for i in mine
            if simulation.faces.sources[i] in secret.sources
        }
        assert clients == set(range(5))
        assert seen.update is not None
        expected = gradient_of(build(seen.model, seen.before), secret.images, secret.labels)
        for name, value in seen.update.tensors.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-5)


def test_dropped_clients_are_in_no_sum(intercept: Intercept) -> None:
    capture = intercept(**FIVE, settings={"dropout": 0.4, "threshold": 0.5}, target=1)
    assert capture.secret is not None
    assert len(capture.secret.images) == capture.seen.batch_size == 3
    assert capture.seen.client == "everybody"


def test_no_attack_reads_masked_vectors(intercept: Intercept) -> None:
    seen = intercept(**FIVE).seen
    only = expose(seen, ("masked_vectors",))
    sent = sent_things(only, Analytic())
    cell = Cell("s", "face", "fedsgd", 1, 1, "d", "analytic", "D", 0, 0)
    assert "reads none" in nothing_to_attack(sent, only.shared, cell)
    control = without_update(only, seeded())
    ours, fresh = (o.shared[0] for o in (only, control))
    assert isinstance(ours, MaskedVectors)
    assert isinstance(fresh, MaskedVectors)
    assert not torch.equal(ours.vectors, fresh.vectors)


def test_it_sums_what_the_parts_of_a_chain_have_made(intercept: Intercept) -> None:
    of = ({"name": "secure_aggregation"}, {"name": "clipping", "max_norm": 1e-2})
    update = intercept(**FIVE | {"defense": "chain", "settings": {"of": of}}).seen.update
    assert update is not None
    assert sum(float(v.square().sum()) for v in update.tensors.values()) ** 0.5 < 1.1e-2
    bare = without_aggregator(Chain(of=of))
    assert [part.facts().name for part in parts_of(bare)] == ["clipping"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "fedgc"}, r"FedGC has a secure aggregator of its own.*secure = true"),
        ({"settings": {"dropout": 0.6}}, r"leaves 2 of 5 clients at dropout = 0.6, and needs 4"),
        ({"clients": 1}, r"leaves 1 of 1 clients at dropout = 0, and needs 2"),
        ({"method": "fedaffect"}, r"FedAffect shares more than one update a client"),
        ({"method": "privacyface"}, r"PrivacyFace shares more than one update a client"),
        (
            {"defense": "chain", "settings": {"of": (DPLC, "secure_aggregation")}},
            r"the clients share ClusterCenters",
        ),
    ],
)
def test_what_it_cannot_sum_is_refused(
    intercept: Intercept, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        intercept(**FIVE | change)


def test_more_images_than_the_ring_holds_are_refused() -> None:
    update = Update("gradient", {"w": torch.ones(2)}, 3000)
    with pytest.raises(ConfigError, match=r"holds 4096 images in all, and .* 6000\. Lower bits"):
        SecureAggregation().aggregate({0: (update,), 1: (update,)}, 2, seeded())
    SecureAggregation(bits=16).aggregate({0: (update,), 1: (update,)}, 2, seeded())


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"bits": 1}, {"bits": 30}, {"threshold": 0.0}, {"dropout": 1.0}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not " + str(next(iter(wrong.values())))):
        SecureAggregation(**wrong)  # type: ignore[arg-type]

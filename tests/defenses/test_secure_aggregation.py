"""Secure aggregation: parts of the protocol against other truths, and what a server sees."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from fedaudit.attacks.closed_form.analytic import Analytic
from fedaudit.captures.shared_things import expose, nothing_to_attack, told
from fedaudit.captures.simulate.simulated import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import Aggregate, MaskedVectors, Update
from fedaudit.core.trial import Cell
from fedaudit.defenses.chain import Chain, parts_of
from fedaudit.defenses.key_agreement import agreed, public_key
from fedaudit.defenses.masked_sum import draw_keys, encode, expand, mask, unmask
from fedaudit.defenses.secret_sharing import FIELD, random_bytes, recover, share
from fedaudit.defenses.secure_aggregation import SecureAggregation
from fedaudit.defenses.weighted_sum import sum_securely
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import without_aggregator
from fedaudit.models.zoo import build

Federate = Callable[..., Simulation]
Intercept = Callable[..., Capture]
FIVE = {"network": "small_cnn", "defense": "secure_aggregation", "clients": 5, "photos": 5}
DPLC = {"name": "dplc", "min_size": 2, "radius": 1.5}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- keys and shares ------------------------------------------------------------------------------


def test_x25519_gives_the_vector_of_rfc_7748() -> None:
    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    point = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    result = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert agreed(bytes.fromhex(scalar), bytes.fromhex(point)).hex() == result


def test_x25519_agrees_with_another_library_and_both_sides_with_each_other() -> None:
    x25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.x25519")
    generator = seeded()
    one, two = random_bytes(32, generator), random_bytes(32, generator)
    theirs = x25519.X25519PrivateKey.from_private_bytes(one)
    public = x25519.X25519PublicKey.from_public_bytes(public_key(two))
    assert public_key(one) == theirs.public_key().public_bytes_raw()
    assert agreed(one, public_key(two)) == theirs.exchange(public)
    assert agreed(one, public_key(two)) == agreed(two, public_key(one))


def test_any_threshold_of_holders_recovers_fewer_do_not() -> None:
    secret = random_bytes(32, seeded())
    shares = share(secret, 3, 5, seeded(1))
    for holders in ((0, 1, 2), (0, 2, 4), (4, 3, 1), (0, 1, 2, 3, 4)):
        assert recover({k: shares[k] for k in holders}) == secret
    with pytest.raises(ValueError, match="too few"):
        recover({k: shares[k] for k in (0, 1)})


def test_fewer_shares_fit_every_secret() -> None:
    """Of a line through two points one point says nothing of where it meets the axis."""
    (_, value, *_) = share(b"\1" * 32, 2, 3, seeded())
    for other in (b"\2" * 32, b"\3" * 32):
        secret = int.from_bytes(other, "big")
        slope = (value - secret) * pow(2, FIELD - 2, FIELD) % FIELD
        fitting = {1: value, 2: (secret + 3 * slope) % FIELD}
        assert recover(fitting) == other


def test_masks_are_uniform() -> None:
    counts = torch.bincount(expand(b"seed" * 8, 1 << 16).to(torch.int64) % 256, minlength=256)
    assert chisquare(counts.numpy()).pvalue > 1e-3


# --- the sum --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropped", [(), (0,), (4,), (1, 3)])
def test_the_sum_over_those_who_are_left_is_exact(dropped: tuple[int, ...]) -> None:
    vectors = {
        k: torch.randint(-(2**24), 2**24, (1000,), generator=seeded(k), dtype=torch.int32)
        for k in range(5)
        if k not in dropped
    }
    keys = draw_keys(5, 3, seeded())
    total = unmask(mask(vectors, keys), keys, 3)
    assert torch.equal(total.long(), torch.stack([v.long() for v in vectors.values()]).sum(0))


def test_masked_vectors_are_uniform_whatever_they_hide() -> None:
    plain = torch.full((1 << 16,), 12345, dtype=torch.int32)
    wavy = (torch.linspace(-1, 1, 1 << 16) * 2**24).to(torch.int32)
    masked = mask({0: plain, 1: wavy, 2: plain}, draw_keys(4, 2, seeded()))
    for hidden, sent in zip((plain, wavy, plain), masked.values(), strict=True):
        for shift in (0, 24):  # lowest and highest byte
            digits = (sent.long() >> shift) % 256
            assert chisquare(torch.bincount(digits, minlength=256).numpy()).pvalue > 1e-3
        if hidden is wavy:
            both = torch.stack([hidden.double(), sent.double()])
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
    assert not torch.equal(masked[0], masked[2])


def test_too_few_left_is_refused() -> None:
    keys = draw_keys(4, 3, seeded())
    vectors = {k: torch.zeros(3, dtype=torch.int32) for k in (0, 1)}
    with pytest.raises(ConfigError, match=r"2 of 4 clients are left, and 3 are needed"):
        unmask(mask(vectors, keys), keys, 3)


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
    sent = told(only, Analytic())
    cell = Cell("s", "face", "fedsgd", 1, 1, "d", "analytic", "D", 0, 0)
    assert "reads none" in nothing_to_attack(sent, cell)
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

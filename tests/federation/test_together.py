"""What a defense changes of a federation: the network, local training, photos of an update."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.malicious.imprint import Imprint
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientStep
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.observation import DefenseFacts, LocalTraining, ModelSpec
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.threat_models import threat_model
from fedaudit.data.splits import Split, target_photos
from fedaudit.defenses.chain import Chain
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import photos_of, training_of
from fedaudit.federation.utility import measure
from fedaudit.scoring.score import score

Federate = Callable[..., Simulation]
HERE = "tests.federation.test_together"


@dataclass(frozen=True, kw_only=True)
class Other:
    """A defense that changes all that a defense may change.

    Args:
        width: Of the embedding.
        images: Behind an update.
        steps: Of local training.
    """

    width: int = 24
    images: int = 3
    steps: int = 1

    def __call__(self, step: ClientStep) -> ClientStep:
        return step

    def facts(self) -> DefenseFacts:
        return DefenseFacts("other", {"width": self.width})

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        del split
        return replace(spec, arguments={**spec.arguments, "dim": self.width})

    def photos(self, batch_size: int) -> int:
        return max(batch_size, self.images)

    def local(self, training: LocalTraining) -> LocalTraining:
        return replace(training, steps=self.steps, batch_size=max(training.batch_size, self.images))


def with_defense(simulation: Simulation, defense: Other) -> Simulation:
    return replace(simulation, defense=defense)


def capture_of(simulation: Simulation, target: int = 0, batch: int = 1) -> Capture:
    return simulate(
        simulation,
        simulation.fresh(),
        target=target,
        batch_size=batch,
        training=LocalTraining(batch_size=batch),
        threat=threat_model("D", ("labels",)),
    )


def test_client_server_and_attacker_build_the_defended_network(federate: Federate) -> None:
    simulation = with_defense(federate(network="small_cnn"), Other())
    state = simulation.fresh()
    assert len(state.server["embedding.weight"]) == 24
    seen = capture_of(simulation).seen
    assert seen.model.arguments["dim"] == 24
    assert seen.update is not None
    assert seen.update.tensors["embedding.weight"].shape == state.server["embedding.weight"].shape
    utility = measure(simulation, state, rounds=0, seconds=0.0)
    assert utility is not None
    sizes = sum(t.numel() * t.element_size() for t in state.server.values())
    assert utility.bytes_per_client_round == 2 * sizes


def test_the_method_builds_first(federate: Federate) -> None:
    simulation = federate(network="small_cnn")
    imposter = create("methods", "solomon_woubie", {})
    both = replace(simulation, method=imposter, defense=Other())
    assert both.spec(0).arguments["dim"] == 24
    assert both.spec(0).arguments["classes"] == simulation.spec(0).arguments["classes"] + 1


def test_a_planted_network_is_not_changed_again(federate: Federate) -> None:
    simulation = with_defense(federate(network="small_cnn"), Other(images=2))
    attack = Imprint(bins=8)
    seen = simulate(
        simulation,
        simulation.fresh(),
        target=0,
        batch_size=1,
        training=LocalTraining(),
        threat=threat_model("F"),
        malicious=attack,
    ).seen
    assert seen.model.arguments["arguments"]["dim"] == 24
    assert "dim" not in seen.model.arguments


def test_more_photos_stand_behind_the_same_audited_ones(federate: Federate) -> None:
    bare = federate(network="small_cnn")
    for target in (0, 1, 3):
        few, more = (capture_of(s, target, 2) for s in (bare, with_defense(bare, Other(images=5))))
        assert few.secret is not None
        assert more.secret is not None
        assert torch.equal(more.secret.images[:2], few.secret.images)
        assert (len(more.secret.images), more.secret.audited) == (5, 2)
        assert len({*more.secret.sources}) == 5
        assert few.secret.audited is None
        assert more.seen.batch_size == 5
        assert more.seen.training is not None
        assert more.seen.training.batch_size == 5
        assert more.seen.labels is not None
        assert more.seen.labels.tolist() == more.secret.labels.tolist()


def test_only_audited_photos_are_scored_after_all_are_paired(federate: Federate) -> None:
    secret = capture_of(with_defense(federate(network="small_cnn"), Other()), batch=1).secret
    assert secret is not None
    turned = Reconstruction(secret.images.roll(1, 0), torch.full((3,), -1))
    scores, labels, images = score(secret, turned, gallery=None, embed=None)
    assert [s.person for s in scores] == [secret.people[0]]
    assert scores[0].metrics["mse"] == 0.0
    assert torch.equal(images, secret.images[:1])
    assert labels is None


def test_clients_train_as_the_observation_says(federate: Federate) -> None:
    defense = Other(steps=4, width=128)  # small_cnn's own width
    simulation = with_defense(federate(network="small_cnn", method="fedavg"), defense)
    seen = capture_of(simulation).seen
    assert seen.training is not None
    assert seen.training.steps == 4
    assert simulation.local(LocalTraining(steps=2)).steps == 4
    assert seen.update is not None
    # Plain SGD: four steps' gradients, each of the three photos in one batch.
    replayed = replace(simulation, defense=create("defenses", "none", {}))
    photos = target_photos(simulation.split, 0, 1, 3)[1]
    generator = torch.Generator().manual_seed(0)
    four = LocalTraining(steps=4, batch_size=3)
    returned = replayed.step(replayed.fresh(), 0, photos, four, generator)
    expected: dict[str, Tensor] = {}
    for sent in returned.shared:
        expected |= dict(getattr(sent, "tensors", {}))
    for name, value in seen.update.tensors.items():
        torch.testing.assert_close(value, expected[name])


def test_several_steps_of_one_gradient_are_refused(federate: Federate) -> None:
    simulation = with_defense(federate(network="small_cnn"), Other(steps=4))
    with pytest.raises(ConfigError, match=r'4 local steps, and the method shares .* "fedavg"'):
        capture_of(simulation)


def test_parts_of_a_chain_act_in_order(federate: Federate) -> None:
    chain = Chain(
        of=({"name": f"{HERE}:Other", "steps": 2}, {"name": f"{HERE}:Other", "images": 7})
    )
    method = create("methods", "fedavg", {})
    assert photos_of(chain, 1) == 7
    made = training_of(method, chain, LocalTraining())
    assert (made.steps, made.batch_size) == (1, 7)


def test_a_client_with_too_few_photos_is_named(federate: Federate) -> None:
    simulation = with_defense(federate(network="small_cnn"), Other(images=1000))
    with pytest.raises(DataError, match=r"client 0 has .* fewer than the defense's 1000"):
        capture_of(simulation)

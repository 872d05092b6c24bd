"""FedFace's first round breaks DP-SGD's claim, shown by attacks that the claim would rule out.

A client has a burst of one photo, or that and one photo more. The server knows the burst and asks
whether the other photo is there: the question that an ε for one image bounds.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.claims import Claim
from fedaudit.core.client import ClientReturn
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import ClassEmbeddings, Update
from fedaudit.defenses.composition import claims_of
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet
from fedaudit.stats.epsilon_bounds import epsilon_of_runs

Federate = Callable[..., Simulation]
BURST = 24
RUNS = 50
NORM = 1e-3
"""Clipping norm; every photo's gradient is above it."""
TRAINING = LocalTraining(lr=1.0, steps=1, batch_size=2 * BURST)


def fedface(federate: Federate, noise: float) -> Simulation:
    simulation = federate(
        network="small_cnn",
        defense="dpsgd",
        settings={"noise_multiplier": noise, "max_grad_norm": NORM},
        clients=12,
        held_out=28,
    )
    method = create("methods", "fedface", {"pretrain_steps": 0, "margin": 1.0})
    return replace(simulation, method=method)


def model_of(simulation: Simulation, state: State) -> FaceNet:
    model = build(simulation.spec(0), state.server)
    assert isinstance(model, FaceNet)
    return model.eval()


def spread_out(simulation: Simulation, state: State) -> State:
    """The server's choice of weights: features of a fresh network all point the same way."""
    model = model_of(simulation, state)
    inputs: list[Tensor] = []
    hook = model.embedding.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        model.embed(simulation.faces.images[:100])
    hook.remove()
    mean = F.normalize(inputs[0].mean(0), dim=0)
    weight = state.server["embedding.weight"]
    level = weight - (weight @ mean)[:, None] * mean
    return replace(state, server={**state.server, "embedding.weight": level})


def sent(simulation: Simulation, state: State, photos: tuple[int, ...], seed: int) -> ClientReturn:
    return simulation.step(state, 0, photos, TRAINING, torch.Generator().manual_seed(seed))


def total(returned: ClientReturn) -> Tensor:
    """The sum of what the photos contribute, which DP-SGD makes private, in units of its norm."""
    update = returned.shared[0]
    assert isinstance(update, Update)
    assert update.examples
    flat = torch.cat([value.flatten() for value in update.tensors.values()])
    return flat * update.examples / (TRAINING.lr * NORM)


def shown_epsilon(federate: Federate, later: bool) -> tuple[float, Claim]:
    """ε that an attack on the update shows at least, and the claim of the round."""
    exact, private = fedface(federate, 0.0), fedface(federate, 4.0)
    state = spread_out(private, private.fresh())
    photo, other = private.labelled(0)[:2]
    burst = (photo,) * BURST
    if later:
        row = model_of(private, state).embed(private.faces.images[[photo]]).detach()
        rows = F.normalize(row + 0.5 * torch.randn(12, 128, generator=torch.Generator()), dim=1)
        state = replace(state, server={**state.server, "head.weight": rows})
    without, beside = (total(sent(exact, state, p, 0)) for p in (burst, (*burst, other)))
    axis = beside - without
    middle = float((beside + without) @ axis) / 2

    def told(photos: tuple[int, ...], first: int) -> int:
        runs = (sent(private, state, photos, seed) for seed in range(first, first + RUNS))
        return sum(float(total(run) @ axis) > middle for run in runs)

    right, wrong = told((*burst, other), 1), told(burst, 1 + RUNS)
    mechanism = sent(private, state, burst, 0)
    (claim,) = claims_of(mechanism)
    return epsilon_of_runs(right, RUNS, wrong, RUNS, delta=claim.delta), claim


@pytest.mark.slow
def test_the_first_update_shows_more_than_the_mechanism_allows(federate: Federate) -> None:
    """The mechanism's own ε is refuted in the first round, and holds in later ones."""
    first, claim = shown_epsilon(federate, later=False)
    assert first > 2 * claim.epsilon  # which is why it is not to be printed
    assert claim.broken
    assert "update" in {gap.what for gap in claim.gaps}
    later, holds = shown_epsilon(federate, later=True)
    assert later <= holds.epsilon == claim.epsilon
    assert "update" in holds.covers


def test_the_first_class_embedding_says_which_photos_there_are(federate: Federate) -> None:
    """Whatever the noise: of all sets of four of five photos the server finds the true one."""
    simulation = fedface(federate, 1e4)
    state = simulation.fresh()
    model = model_of(simulation, state)
    photos = simulation.labelled(0)
    sets = [(*photos[:k], *photos[k + 1 :]) for k in range(len(photos))]
    with torch.no_grad():
        features = [model.embed(simulation.faces.images[list(each)]).mean(0) for each in sets]
    means = F.normalize(torch.stack(features), dim=1)
    for k, each in enumerate(sets):
        returned = sent(simulation, state, each, k)
        template = returned.shared[1]
        assert isinstance(template, ClassEmbeddings)
        assert int((means - template.rows).norm(dim=1).argmin()) == k
        assert "class_embeddings" in {
            gap.what for (claim,) in [claims_of(returned)] for gap in claim.gaps
        }
    again, _ = simulation.train(state, range(1, 2))
    alike = [sent(simulation, again, each, 0).shared[1] for each in sets]
    assert all(torch.equal(one.rows, alike[0].rows) for one in alike)  # type: ignore[attr-defined]


def test_one_photo_moves_the_gradients_of_the_others(federate: Federate) -> None:
    """The mechanism's noise is for one clipped gradient; here, almost all five turn alike."""
    simulation = fedface(federate, 0.0)
    state = spread_out(simulation, simulation.fresh())
    photo, other = simulation.labelled(0)[:2]
    burst = (photo,) * 4
    without, beside = (
        total(sent(simulation, state, photos, 0)) for photos in (burst, (*burst, other))
    )
    assert float((beside - without).norm()) > 3

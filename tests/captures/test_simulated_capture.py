"""Captures: what each threat model withholds, and that no path leads to the secret."""

import gc
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.templates.read_templates import rows_of_sum
from fedaudit.captures.simulate.simulated_capture import withhold
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.registry import names
from fedaudit.core.shared import ClusterCenters, SummedRows, Update
from fedaudit.core.threat_models import THREAT_MODELS, threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.simulation import Simulation

Intercept = Callable[..., Capture]
Federate = Callable[..., Simulation]
DEFENSES = ("none", "dpsgd", "dplc", "private_projector")


# --- threat models ------------------------------------------------------------------------------

FIELDS = {
    "image_shape": Knowledge.BASIC,
    "batch_size": Knowledge.BASIC,
    "num_classes": Knowledge.BASIC,
    "training": Knowledge.TRAINING,
    "defense": Knowledge.DEFENSE,
    "labels": Knowledge.LABELS,
}


@pytest.mark.parametrize("grant", [(), ("labels",)])
@pytest.mark.parametrize("letter", THREAT_MODELS)
def test_a_field_is_there_exactly_where_it_is_granted(
    letter: str, grant: tuple[str, ...], intercept: Intercept
) -> None:
    granted = threat_model(letter, grant).grants
    seen = intercept(threat=letter, grant=grant, network="small_cnn").seen
    for field, fact in FIELDS.items():
        assert (getattr(seen, field) is not None) == (fact in granted), field
    assert seen.before
    assert seen.update is not None


def test_withholding_takes_nothing_else(intercept: Intercept) -> None:
    seen = intercept(threat="D", grant=("labels",), network="small_cnn").seen
    assert withhold(seen, threat_model("D", ["labels"])) == seen
    bare = withhold(seen, threat_model("A", deny=["defense"]))
    assert (bare.model, bare.before, bare.shared) == (seen.model, seen.before, seen.shared)
    assert (bare.round, bare.client) == (seen.round, seen.client)


def test_facts_are_those_of_the_capture(intercept: Intercept) -> None:
    training = LocalTraining(lr=0.02, steps=3, batch_size=2, momentum=0.5)
    captured = intercept(network="small_cnn", method="fedavg", batch=2, target=1, training=training)
    seen, secret = captured.seen, captured.secret
    assert secret is not None
    assert seen.training == training
    assert (seen.batch_size, seen.image_shape, seen.num_classes) == (2, (3, 32, 32), 30)
    assert seen.client == "client-1"
    assert secret.images.shape == (2, 3, 32, 32)
    assert len(set(secret.people)) == 2
    assert [s.split("/")[0] for s in secret.sources] == list(secret.people)
    sgd = intercept(network="small_cnn", training=training).seen.training
    assert sgd == replace(training, steps=1, momentum=0.0)


def test_a_capture_depends_on_its_seed_only(intercept: Intercept) -> None:
    one, two, other = (
        intercept(network="small_cnn", defense="dpsgd", seed=seed).seen.update for seed in (0, 0, 1)
    )
    assert one is not None
    assert two is not None
    assert other is not None
    assert all(torch.equal(one.tensors[k], two.tensors[k]) for k in one.tensors)
    assert not any(torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors)


def test_the_prior_only_control_keeps_norms_and_nothing_else(intercept: Intercept) -> None:
    seen = intercept(defense="dplc", settings={"min_size": 2, "radius": 1.5}).seen
    control = without_update(seen, torch.Generator().manual_seed(0))
    assert [type(s) for s in control.shared] == [Update, ClusterCenters]
    assert seen.update is not None
    assert control.update is not None
    for name, value in seen.update.tensors.items():
        drawn = control.update.tensors[name]
        assert drawn.shape == value.shape
        torch.testing.assert_close(drawn.norm(), value.norm(), rtol=1e-4, atol=0)
        cosine = torch.cosine_similarity(drawn.flatten(), value.flatten(), dim=0)
        assert abs(float(cosine)) < 5 / value.numel() ** 0.5
    assert replace(control, shared=seen.shared) == seen


# --- no path to the secret ----------------------------------------------------------------------

CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


def reachable(root: object) -> Iterator[object]:
    """Everything that can be reached from `root` through references, except through code."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        thing = waiting.pop()
        yield thing
        for other in (*gc.get_referents(thing), *beyond(thing)):
            if id(other) not in seen and not isinstance(other, CODE):
                seen.add(id(other))
                waiting.append(other)


def beyond(thing: object) -> list[Any]:
    """References that tensors hold in C++, where Python's collector does not see them."""
    if not isinstance(thing, Tensor):
        return []
    return [x for x in (thing.grad_fn, thing.is_leaf and thing.grad, thing._base) if x is not None]


def leaks(seen: object, secret: Secret) -> list[str]:
    found = []
    pixels = {secret.images.untyped_storage().data_ptr()}
    for thing in reachable(seen):
        if isinstance(thing, Secret | Capture | FaceSet | Simulation):
            found.append(type(thing).__name__)
        if isinstance(thing, Tensor):
            if thing.untyped_storage().data_ptr() in pixels:
                found.append("a tensor in the storage of the images")
            if thing.grad_fn is not None:
                found.append("an autograd graph, which keeps the images")
            if thing.untyped_storage().nbytes() > thing.numel() * thing.element_size():
                found.append("a view of something larger")
            if thing.shape[-3:] == secret.images.shape[-3:] and any(
                torch.equal(image, row)
                for row in thing.reshape(-1, *thing.shape[-3:])
                for image in secret.images
            ):
                found.append("a copy of an image")
        if isinstance(thing, str) and thing in (*secret.people, *secret.sources):
            found.append(f"the name {thing}")
    return found


@pytest.mark.parametrize("method", names("methods"))
@pytest.mark.parametrize("defense", DEFENSES)
def test_no_path_leads_from_an_observation_to_the_secret(
    defense: str, method: str, intercept: Intercept
) -> None:
    if (defense, method) == ("dpsgd", "fedaffect"):
        pytest.skip("its loss without labels has no gradient of one image, and DP-SGD refuses it")
    clients = 30 if method == "fedface" else 2  # of one person each
    settings = {"min_size": 1} if (defense, method) == ("dplc", "fedface") else {}
    captured = intercept(
        network="small_cnn",
        batch=2,
        defense=defense,
        settings=settings,
        method=method,
        threat="G",
        clients=clients,
    )
    assert captured.secret is not None
    assert leaks(captured.seen, captured.secret) == []


def test_the_walk_finds_every_planted_path(intercept: Intercept) -> None:
    """The test above can fail: each fault that it looks for is found."""
    captured = intercept(network="small_cnn", batch=2)
    seen, secret = captured.seen, captured.secret
    assert secret is not None
    weight = nn.Parameter(torch.ones(2))
    planted: dict[str, Any] = {
        "Secret": {"x": [secret]},
        "Capture": (captured,),
        "a tensor in the storage of the images": secret.images[0, :1, :2],
        "a copy of an image": [[secret.images.clone()]],
        "an autograd graph, which keeps the images": {"y": weight * 2},
        "a view of something larger": torch.zeros(10)[:2],
        f"the name {secret.people[0]}": (secret.people[0],),
    }
    for leak, hidden in planted.items():
        assert leak in leaks(
            replace(seen, model=replace(seen.model, arguments={"_": hidden})), secret
        )


def test_the_control_of_a_sum_is_noise_in_what_each_owner_put_in() -> None:
    """Where everybody's rows were broadcast, subtracting them must leave nothing of the person."""
    draw = torch.Generator().manual_seed(0)
    before, rows = torch.randn(6, 64, generator=draw), torch.randn(6, 64, generator=draw)
    owners, weights = (0, 0, 1, 1, 2, 2), (3.0, 4.0, 5.0)
    own = torch.tensor([weights[k] for k in owners])[:, None]
    sent = SummedRows(own * rows + (sum(weights) - own) * before, owners, weights)
    seen = Observation(ModelSpec("face"), {"head.weight": before}, (sent,))
    assert torch.allclose(rows_of_sum(sent, seen.before), rows, atol=1e-5)
    (blind,) = without_update(seen, torch.Generator().manual_seed(1)).shared
    assert isinstance(blind, SummedRows)
    left = rows_of_sum(blind, seen.before)
    assert torch.allclose(left.norm(dim=1), rows.norm(dim=1), rtol=1e-4)
    for known in (before, rows):  # noise knows neither; -(K - 1) of what was sent would show here
        assert F.cosine_similarity(left, known).abs().max() < 0.45

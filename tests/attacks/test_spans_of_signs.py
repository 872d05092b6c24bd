"""Signs, and steps of Adam, which nearly are: what they still say of layers' inputs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.estimation import _is_a_step_of_adam, estimate
from fedaudit.attacks.evidence.common_maps import common_maps
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.evidence.layer_trust import alike_by_direction
from fedaudit.attacks.evidence.span_spectrum import SIGN_NOISE, find_spans
from fedaudit.attacks.gathering.gather import gather, gather_inputs
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.span_matching import SpanMatching, lead_of_spans
from fedaudit.core.observation import DefenseFacts, LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build

SPEC = ModelSpec("torchvision:resnet18", {"classes": 10, "image_size": 32})
SHAPE = (3, 32, 32)
RATE = 1e-3


@pytest.fixture(scope="module")
def photos(faces: FaceSet) -> Tensor:
    """Two people's, in tints of their own."""
    tints = torch.tensor([[0.9, 0.6, 0.5], [0.5, 0.7, 0.8]])[:, :, None, None]
    return faces.images[[0, 100]] * tints


@pytest.fixture(scope="module")
def gradient(photos: Tensor) -> dict[str, Tensor]:
    model = build(SPEC, seed=0).eval()
    loss = F.cross_entropy(model(photos[:1]), torch.tensor([3]))
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def observed(update: Update, *, adam: bool) -> Observation:
    network = build(SPEC, seed=0)
    defense = () if adam else (DefenseFacts("sign", {}),)
    return Observation(
        SPEC,
        {name: value.detach().clone() for name, value in network.state_dict().items()},
        (update,),
        SHAPE,
        1,
        10,
        training=LocalTraining(lr=RATE, batch_norm="eval", optimizer="adam" if adam else "sgd"),
        defense=defense,
    )


def step_of_adam(photos: Tensor, *, decay: float = 0.0, but_vectors: bool = False) -> Update:
    """And of AdamW, which decays all, or matrices alone."""
    network = build(SPEC, seed=0).eval()
    groups = [
        {"params": [p], "weight_decay": 0.0 if but_vectors and p.dim() < 2 else decay}
        for p in network.parameters()
    ]
    optimizer = torch.optim.AdamW(groups, RATE)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    F.cross_entropy(network(photos[:1]), torch.tensor([3])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = network.named_parameters()
    return Update("delta", {name: value.detach() - before[name] for name, value in after}, 1)


def test_the_noise_of_a_sign_is_what_it_has_beside_a_multiple_of_its_number() -> None:
    numbers = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    signs = numbers.sign()
    rest = signs - (signs @ numbers) / (numbers @ numbers) * numbers
    assert abs(float(rest.std()) - SIGN_NOISE) < 0.005


def test_columns_of_one_length_tell_the_photo_from_another(
    photos: Tensor, gradient: dict[str, Tensor]
) -> None:
    """In a layer with few positions they do by far, where rows as they are hardly do."""
    reader = InputReader(build(SPEC, seed=0).eval(), SHAPE, 1)
    signs = {name: value.sign() for name, value in gradient.items()}
    spans = {span.name: span for span in find_spans(reader, signs, signs=True)}
    name = "layer3.1.conv1.weight"
    with torch.no_grad():
        own, other = (reader.inputs([name], photo)[name] for photo in photos.split(1))  # type: ignore[no-untyped-call]
    even, as_is = spans[name], replace(spans[name], signs=False)
    assert float(even.distance_of_inputs(own, 1)) < 0.25
    assert float(even.distance_of_inputs(other, 1)) > 2 * float(even.distance_of_inputs(own, 1))
    assert float(as_is.distance_of_inputs(own, 1)) > 1.5 * float(even.distance_of_inputs(own, 1))


def test_each_direction_counts_alike() -> None:
    basis = torch.eye(4)[None]
    spans = [
        LayerSpan(str(k), 1, basis[:, :k], torch.ones(1, k), whole=True, full=True, floor=0.0)
        for k in (1, 3)
    ]
    assert [span.trust for span in alike_by_direction(spans)] == [0.5, 1.5]
    assert alike_by_direction([]) == ()


@pytest.mark.parametrize("adam", [True, False])
def test_who_sees_signs_knows_that_they_are(
    photos: Tensor, gradient: dict[str, Tensor], adam: bool
) -> None:
    signs = Update("gradient", {name: value.sign() for name, value in gradient.items()}, 1)
    seen = observed(step_of_adam(photos) if adam else signs, adam=adam)
    evidence = gather_inputs(seen)
    assert evidence.signs
    assert gather(seen).signs
    assert all(span.signs for span in evidence.spans)
    assert not any(common_maps(evidence.reader, span) is not None for span in evidence.spans)
    spans = SpanMatching(evidence)
    assert spans.follows
    assert spans.drifted
    assert lead_of_spans(evidence, (), 1) is None  # an attack of its own, no opening of others
    assert spans.distance(photos[:1]) < 0.6 * spans.distance(photos[1:])
    attack = subspace_matching(steps=2, polish=0, mends=0, complete_steps=0)
    found = attack(seen, generator=torch.Generator().manual_seed(0))
    assert found.adaptive == ("none needed" if adam else "known")
    assert found.searched_by == "signs"  # spans of an undefended control vouch for no such search


def test_gradients_as_they_are_are_no_signs(gradient: dict[str, Tensor]) -> None:
    seen = replace(observed(Update("gradient", gradient, 1), adam=False), defense=())
    assert not gather_inputs(seen).signs
    assert not any(span.signs for span in gather_inputs(seen).spans)


@pytest.mark.parametrize(
    ("done", "names"),
    [
        ("nothing", ()),
        ("noise", ("gaussian_noise",)),
        ("nine tenths pruned", ("top_k", "random_pruning")),
    ],
)
def test_a_step_of_adam_says_nothing_of_defenses_but_what_it_contradicts(
    done: str, names: tuple[str, ...], photos: Tensor
) -> None:
    update, generator = step_of_adam(photos), torch.Generator().manual_seed(0)
    if done == "noise":
        update = replace(
            update,
            tensors={
                name: value + 10 * RATE * torch.randn(value.shape, generator=generator)
                for name, value in update.tensors.items()
            },
        )
    if done == "nine tenths pruned":
        update = replace(
            update,
            tensors={
                name: value * (torch.rand(value.shape, generator=generator) < 0.1)
                for name, value in update.tensors.items()
            },
        )
    seen = replace(observed(update, adam=True), defense=None)
    found = [facts.name for facts in estimate(seen)]
    assert bool(found) == bool(names)
    assert set(found) <= set(names)


@pytest.mark.parametrize("but_vectors", [False, True])
def test_decay_beside_a_step_is_no_defense(but_vectors: bool, photos: Tensor) -> None:
    """Though it makes steps of large weights longer than the learning rate."""
    seen = observed(step_of_adam(photos, decay=0.5, but_vectors=but_vectors), adam=True)
    assert seen.update is not None
    assert max(float(v.abs().max()) for v in seen.update.tensors.values()) > 1.01 * RATE
    training = LocalTraining(RATE, batch_norm="eval", optimizer="adamw", weight_decay=0.5)
    assert estimate(replace(seen, defense=None, training=training)) == ()
    larger = {name: 1.01 * value for name, value in seen.update.tensors.items()}
    longer = replace(seen, defense=None, training=training, shared=(Update("delta", larger, 1),))
    assert not _is_a_step_of_adam(larger, longer)

"""What a simulated client says of how far several local steps drift, layer by layer."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence.layer_spans import span_distance
from fedaudit.attacks.evidence.layer_trust import trusted
from fedaudit.attacks.evidence.simulated_misfit import LEAST, simulated_misfit
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.search.schedules.grids_in_turn import OF_DRIFT, OF_STEPS
from fedaudit.attacks.search.schedules.span_stages import span_stages
from fedaudit.attacks.search.schedules.suited import suited
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.models import live_module

sys.path.insert(0, str(Path(__file__).parent))
from test_common_maps import SHAPE, drawn
from test_unmixed_maps import network

TWO_EPOCHS = LocalTraining(lr=0.05, steps=4, batch_size=2, momentum=0.9)


def trained_on(
    model: nn.Module, images: Tensor, training: LocalTraining, views: Tensor | None = None
) -> dict[str, Tensor]:
    """The weight delta of a client, by torch's own optimizer; on `views` `[E, …]` of E epochs."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=training.lr, momentum=training.momentum)
    generator, order = torch.Generator().manual_seed(7), list[tuple[int, Tensor]]()
    for epoch in range(training.steps):  # more than enough
        shuffled = torch.randperm(len(images), generator=generator)
        order += [(epoch, which) for which in torch.split(shuffled, training.batch_size)]
    for epoch, which in order[: training.steps]:
        photos = images if views is None else views[epoch]
        optimizer.zero_grad()
        F.cross_entropy(model(photos[which]), which % 5).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    delta = {name: (p - before[name]).detach() for name, p in model.named_parameters()}
    model.load_state_dict(state)
    return delta


def seen_of(
    model: nn.Module, delta: dict[str, Tensor], training: LocalTraining | None
) -> Observation:
    return Observation(
        model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
        before=dict(model.state_dict()),
        shared=(Update("delta", delta),),
        batch_size=4,
        image_shape=SHAPE,
        training=training,
    )


def test_it_is_about_as_far_as_the_clients_own_photos_are() -> None:
    model, images = network(), drawn(4)
    delta = trained_on(model, images, TWO_EPOCHS)
    evidence = gather_inputs(seen_of(model, delta, TWO_EPOCHS))
    expected = evidence.misfit
    own = find_spans(evidence.reader, delta)
    uses = evidence.reader.inputs([span.name for span in own], images)
    true = {s.name: max(float(s.distance(s.rows(uses[s.name])).detach()), LEAST) for s in own}
    assert set(expected) == set(true)
    assert max(true.values()) > 10 * min(true.values())  # layers differ by more than the guess
    for name, value in expected.items():
        assert 0.2 < value / true[name] < 5
    assert {span.trust for span in evidence.spans} != {1.0}


@pytest.mark.parametrize(
    "training", [None, replace(TWO_EPOCHS, steps=1), replace(TWO_EPOCHS, lr=1e30)]
)
def test_of_one_step_unknown_settings_or_divergence_it_says_nothing(
    training: LocalTraining | None,
) -> None:
    model, images = network(), drawn(4)
    seen = seen_of(model, trained_on(model, images, replace(TWO_EPOCHS, steps=1)), training)
    assert gather_inputs(seen).misfit == {}
    assert simulated_misfit(gather_inputs(seen), seen) == {}


def test_layers_are_weighed_by_what_is_expected_of_them() -> None:
    model, images = network(), drawn(4)
    evidence = gather_inputs(seen_of(model, trained_on(model, images, TWO_EPOCHS), None))
    spans = evidence.spans
    assert trusted(spans, {}) == spans
    first, others = spans[0].name, [span.name for span in spans[1:]]
    weighed = trusted(spans, {first: 1e-4} | dict.fromkeys(others, 1e-2))
    assert weighed[0].trust == pytest.approx(10 * weighed[1].trust)
    assert sum(span.trust for span in weighed) == pytest.approx(len(spans))
    alone = [float(span_distance(evidence.reader, [s], images).detach()) for s in spans]
    mean = sum(w.trust * part for w, part in zip(weighed, alone, strict=True)) / len(spans)
    assert float(span_distance(evidence.reader, weighed, images).detach()) == pytest.approx(mean)


def test_grids_take_turns_for_a_batch_of_several_steps() -> None:
    stages = suited(span_stages(), open_detail=False, drifted=True)
    grids = [stage.varies.coarse for stage in stages if isinstance(stage.varies, Pixels)]
    assert grids == [turn[1] for turn in OF_DRIFT]
    model, images = network(), drawn(4)
    rebuilt = fedaudit.attack(
        model,
        trained_on(model, images, TWO_EPOCHS),
        "subspace_matching",
        kind="delta",
        training=TWO_EPOCHS,
        images=4,
        image_shape=SHAPE,
        settings={"steps": 3},
    )
    assert rebuilt.iterations == sum(round(3 * turn[2]) for turn in OF_STEPS)
    assert torch.isfinite(rebuilt.images).all()


def test_little_drift_is_searched_as_usual() -> None:
    model, images = network(), drawn(4)
    evidence = gather_inputs(seen_of(model, trained_on(model, images, TWO_EPOCHS), TWO_EPOCHS))
    assert SpanMatching(evidence).drifted
    scarcely = replace(evidence, misfit=dict.fromkeys(evidence.misfit, 0.001))
    assert not SpanMatching(scarcely).drifted
    assert not SpanMatching(replace(evidence, misfit={})).drifted

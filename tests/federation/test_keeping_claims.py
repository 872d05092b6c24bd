"""A defense that keeps claims reads nothing but the update; whoever reads photos breaks them."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.claims import Claim
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import FedauditError
from fedaudit.core.registry import create
from fedaudit.core.shared import tensors_in
from fedaudit.defenses.chain import Chain
from fedaudit.defenses.composition import apply_defense
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of

sys.path.insert(0, str(Path(__file__).parents[1] / "defenses"))
sys.path.insert(0, str(Path(__file__).parent))
from neighbors import (
    ALIKE,
    GIVERS,
    PHOTOS,
    TRAINING,
    chained,
    federation,
    moved_by,
    neighbor,
    settings_of,
)
from test_defense_contract import CASES, CROWDED

Federate = Callable[..., Simulation]


def same_update(task: ClientTask) -> ClientReturn:
    """A client whose update is that of other photos, whatever it has."""
    fixed = torch.rand(task.images.shape, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    labels = torch.zeros(len(fixed), dtype=torch.long)
    before = parameters_of(build(task.model, {**task.before, **task.kept}, seed=3))
    asked = replace(task, before=before, kept={}, images=fixed, labels=labels, copies=1)
    returned = train_locally(replace(asked, generator=generator, prepare=None))
    claim = Claim(
        epsilon=1.0,
        delta=1e-5,
        unit="image",
        neighbors="replace one",
        covers=("update",),
        mechanism="an oracle",
        accountant="nobody",
        stage="training",
    )
    return replace(returned, claims=(claim,))


@pytest.mark.parametrize("defense", CASES)
def test_keeping_claims_is_to_read_nothing_but_the_update(federate: Federate, defense: str) -> None:
    """Of the same update and the same draws the same is made, or the claim is given up."""
    simulation = federation(federate, "fedavg")
    photos = simulation.labelled(0)[:PHOTOS]
    part = create("defenses", defense, settings_of(defense))
    guarded = apply_defense(part, same_update)

    def returned(simulation: Simulation, photos: tuple[int, ...]) -> ClientReturn:
        rest = tuple(simulation.unlabelled(0, photos))
        return guarded(
            ClientTask(
                model=simulation.spec(0),
                before=simulation.fresh().server,
                kept={},
                images=simulation.faces.images[list(photos)],
                labels=torch.tensor([simulation.label_of(0, photo) for photo in photos]),
                training=TRAINING,
                share="delta",
                generator=torch.Generator().manual_seed(7),
                others=simulation.faces.images[list(rest)],
                other_labels=torch.zeros(len(rest), dtype=torch.long),
            )
        )

    if defense in CROWDED:  # refuses a claim for one image
        with pytest.raises(FedauditError, match="one photo is in several"):
            returned(simulation, photos)
        return
    one = returned(simulation, photos)
    others = [
        returned(*neighbor(simulation, unit, photos, color))
        for unit in ("image", "client")
        for color in (False, True)
    ]
    equal = all(
        torch.equal(a, b)
        for other in others
        for a, b in zip(tensors_in(one.shared), tensors_in(other.shared), strict=True)
    )
    assert equal == part.keeps_claims
    intact = next(claim for claim in one.claims if claim.unit == "image")
    assert ("update" in intact.covers) == part.keeps_claims
    if not part.keeps_claims:
        assert any(defense in gap.why for gap in intact.gaps if gap.what == "update")


@pytest.mark.parametrize("reader", ["soteria", "censor"])
@pytest.mark.parametrize("giver", ["dpsgd", "client_dp"])
def test_who_reads_photos_after_the_noise_breaks_the_claim(
    federate: Federate, giver: str, reader: str
) -> None:
    """DP-SGD's noise is in training, before either; the noise in sending, where the chain says."""
    unit = "image" if giver == "dpsgd" else "client"
    for pair, broken in (((giver, reader), True), ((reader, giver), giver == "dpsgd")):
        simulation = chained(federate, "fedavg", *pair)
        claims, moved = moved_by(simulation, "client")
        (claim,) = (claim for claim in claims if claim.unit == unit)
        assert ("update" not in claim.covers) == broken
        assert (moved["update"] > ALIKE) == broken  # and not for nothing
        assert claim.broken == (broken and "clipped_bit" not in moved)


def test_a_defense_that_does_not_say_what_it_reads_breaks_every_claim(federate: Federate) -> None:
    class Silent:
        def __call__(self, step: Any) -> Any:
            return step

        def facts(self) -> Any:
            return create("defenses", "none", {}).facts()

    simulation = federation(federate, "fedavg", ("dpsgd", GIVERS["dpsgd"]))
    chain = simulation.defense
    assert isinstance(chain, Chain)
    (private,) = chain.parts

    class Both(Silent):
        keeps_claims = True
        order: tuple[Any, ...] = (private, Silent())

        def __call__(self, step: Any) -> Any:
            for part in self.order:
                step = apply_defense(part, step)
            return step

    for order in ((private, Silent()), (Silent(), private)):
        both = Both()
        both.order = order
        (claim,) = moved_by(replace(simulation, defense=both), "image")[0]
        assert claim.broken
        assert "keeps_claims" in claim.gaps[0].why

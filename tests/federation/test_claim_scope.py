"""What a claim covers, by experiment: neighboring data at one noise draw.

Whatever a claim covers must hang on the photos through its mechanism alone. Three things follow
that need no proof of each defense:

- with noise ten thousand times the sensitivity, what is covered is the same for neighbors, up to
  about as little as that, and whatever went around the noise differs;
- a defense that keeps claims makes the same of the same update, whatever the photos are;
- without noise, neighbors are no further apart than the sensitivity that the noise is scaled to.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.claims import Claim
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import ConfigError, DataError, FedauditError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import Shared, Update, kind_of, tensors_in
from fedaudit.defenses.chain import Chain
from fedaudit.defenses.composition import apply_defense, claims_of
from fedaudit.defenses.dplc import MEMBERSHIP
from fedaudit.federation.federation_state import State
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of

sys.path.insert(0, str(Path(__file__).parents[1] / "defenses"))
from test_defense_contract import CASES, CROWDED

Federate = Callable[..., Simulation]
LOUD = 1e4
"""Noise over the sensitivity where neighbors must look alike."""
ALIKE = 0.1
"""Relative L2 distance that counts as alike: signs and places of a ten-thousandth may flip."""
SMALL = 1e-3
"""Clipping norm at which loud noise leaves the weights finite."""
GIVERS: dict[str, dict[str, Any]] = {
    "dpsgd": {"noise_multiplier": LOUD, "max_grad_norm": SMALL},
    "client_dp": {"noise_multiplier": LOUD, "max_norm": SMALL, "quantile": 0.5},
    "dplc": {"epsilon": 1 / LOUD, "radius": 1.5, "min_size": 1},
}
"""Defenses that make a claim, at loud noise."""
UNITS: dict[str, tuple[str, ...]] = {"image": ("image",), "client": ("client", "class embedding")}
"""Claims that must hold between clients who differ by an image, or by all: that moves all rows."""
METHODS: dict[str, dict[str, Any]] = {
    "fedsgd": {},
    "fedavg": {},
    "fedprox": {"mu": 1.0},
    "fedface": {"pretrain_steps": 0, "margin": 1.0},
    "fedgc": {},
    "privacyface": {"radius": 1.5, "min_size": 1},
    "private_projector": {"pretrain_steps": 0},
    "solomon_woubie": {"imposters": 2},
    "fedaffect": {},
}
PHOTOS = 4
TRAINING = LocalTraining(lr=0.02, steps=1, batch_size=PHOTOS)
FAR = replace(TRAINING, lr=1e3, batch_size=64)
"""All photos in a step so large that rounding the weights does not blur what one photo moves."""


def quickly(values: Iterable[str], *slow: str) -> list[Any]:
    """Parameters of a test, those of `slow` for the long suite only."""
    return [pytest.param(v, marks=pytest.mark.slow) if v in slow else v for v in values]


def federation(
    federate: Federate, method: str, *defenses: tuple[str, dict[str, Any]]
) -> Simulation:
    """Two clients (FedFace: of one person each) with the defenses in the order of a chain."""
    of = tuple({"name": name, **settings} for name, settings in defenses)
    clients = {"clients": 12, "held_out": 28} if method == "fedface" else {"clients": 2}
    plain = federate(
        network="small_cnn",
        defense="chain" if of else "none",
        settings={"of": of} if of else {},
        photos=8,
        **clients,
    )
    return replace(plain, method=create("methods", method, METHODS[method]))


def neighbor(
    simulation: Simulation, unit: str, photos: tuple[int, ...], color: bool
) -> tuple[Simulation, tuple[int, ...]]:
    """The client with another first photo, or with others all over: of another person, repainted.

    Of a fresh network the label moves a gradient more than anything else.
    """
    rest = simulation.labelled(0)[PHOTOS:]
    changed = rest[-1:] if unit == "image" else rest[-PHOTOS:]
    images = simulation.faces.images.clone()
    repainted = list(changed) if unit == "image" else list(simulation.split.photos[0])
    noise = torch.Generator().manual_seed(11)
    other = torch.rand(len(repainted), *images.shape[1:], generator=noise)
    images[repainted] = other if color else other.mean(1, keepdim=True).expand_as(other)
    other_faces = replace(simulation, faces=replace(simulation.faces, images=images))
    return other_faces, (*changed, *photos[len(changed) :])


def step(
    simulation: Simulation,
    state: State,
    photos: tuple[int, ...],
    training: LocalTraining = TRAINING,
) -> ClientReturn:
    return simulation.step(state, 0, photos, training, torch.Generator().manual_seed(5))


def distance(one: Shared, other: Shared) -> float:
    """Largest relative distance of any tensor; infinite where shapes differ."""
    worst = 0.0
    for a, b in zip(tensors_in(one), tensors_in(other), strict=True):
        if a.shape != b.shape:
            return float("inf")
        size = max(float(a.double().norm()), float(b.double().norm()))
        worst = max(worst, float((a.double() - b.double()).norm()) / size if size else 0.0)
    return worst


def by_kind(returned: ClientReturn) -> dict[str, list[Shared]]:
    kinds: dict[str, list[Shared]] = {}
    for sent in returned.shared:
        kinds.setdefault(kind_of(sent), []).append(sent)
    return kinds


def moved_by(simulation: Simulation, unit: str, *, color: bool = False) -> tuple[Any, ...]:
    """The claims of a client's round, and how far each kind moves for a neighbor of that unit."""
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    returned = step(simulation, state, photos)
    elsewhere, others = neighbor(simulation, unit, photos, color)
    other = step(elsewhere, state, others)
    ours, theirs = by_kind(returned), by_kind(other)
    moved = {
        kind: max(distance(a, b) for a, b in zip(sent, theirs.get(kind, []), strict=True))
        for kind, sent in ours.items()
    }
    return claims_of(returned), moved


def assert_covered_is_drowned(simulation: Simulation) -> None:
    """What each claim on updates covers looks the same for its neighbors."""
    for unit, claimed in UNITS.items():
        claims, moved = moved_by(simulation, unit)
        for claim in (claim for claim in claims if claim.unit in claimed):
            gaps = {gap.what for gap in claim.gaps}
            assert set(moved) <= {*claim.covers, *gaps}, "something was sent that is not named"
            for kind in claim.covers:
                other_clusters = moved[kind] == float("inf") and MEMBERSHIP in claim.gaps
                drowned = moved[kind] < ALIKE or other_clusters
                assert drowned, f"{kind} goes around the noise of {claim.mechanism}"


# --- methods and single defenses ------------------------------------------------------------------


@pytest.mark.parametrize("method", quickly(METHODS, "solomon_woubie", "fedprox"))
@pytest.mark.parametrize("giver", GIVERS)
def test_noise_drowns_all_that_a_claim_covers(federate: Federate, giver: str, method: str) -> None:
    simulation = federation(federate, method, (giver, GIVERS[giver]))
    if giver == "dpsgd" and method == "fedaffect":
        with pytest.raises(FedauditError, match="no such gradient"):
            moved_by(simulation, "image")
        return
    assert_covered_is_drowned(simulation)


READING = {"censor": {"trials": 16}}
"""Enough draws that other photos choose another one."""
PAIRS = [
    (first, second)
    for giver in GIVERS
    for other in CASES
    for first, second in ((giver, other), (other, giver))
]


def settings_of(name: str) -> dict[str, Any]:
    return {**GIVERS.get(name, CASES[name]), **READING.get(name, {})}


def chained(federate: Federate, method: str, first: str, second: str) -> Simulation:
    return federation(federate, method, (first, settings_of(first)), (second, settings_of(second)))


QUICK = [
    ("dpsgd", "top_k"),
    ("dpsgd", "client_dp"),
    ("client_dp", "dpsgd"),
    ("dplc", "dpsgd"),
    ("dpsgd", "dplc"),
    ("client_dp", "dplc"),
    ("soteria", "client_dp"),
    ("client_dp", "dual_pruning"),
    ("dplc", "soteria"),
    ("local_layers", "dplc"),
]


@pytest.mark.parametrize(("first", "second"), QUICK)
def test_noise_drowns_what_is_covered_in_a_chain(
    federate: Federate, first: str, second: str
) -> None:
    check_pair(federate, "fedavg", first, second)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_noise_drowns_what_is_covered_everywhere(
    federate: Federate, first: str, second: str, method: str
) -> None:
    check_pair(federate, method, first, second)


def check_pair(federate: Federate, method: str, first: str, second: str) -> None:
    with suppress(ConfigError, DataError):  # refused: `test_defense_contract` says which, and why
        assert_covered_is_drowned(chained(federate, method, first, second))


# --- defenses alone -------------------------------------------------------------------------------


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


# --- sensitivity ----------------------------------------------------------------------------------


def stretch(one: Update, other: Update) -> float:
    """L2 distance of two updates."""
    first, second = (torch.cat([t.flatten() for t in u.tensors.values()]) for u in (one, other))
    return float((first - second).norm())


BEFORE_TRAINING: Mapping[str, dict[str, Any]] = {
    name: CASES[name]
    for name in ("none", "ats", "private_projector", "local_layers", "larger_batch", "precode")
}
"""Defenses that change what trains, and leave one image's part in the update to DP-SGD."""


def gradient_distance(simulation: Simulation, color: bool = False) -> tuple[float, Claim]:
    """How far one replaced photo moves the sum of clipped gradients, in units of C; the claim."""
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    one = step(simulation, state, photos, FAR)
    elsewhere, others = neighbor(simulation, "image", photos, color)
    other = step(elsewhere, state, others, FAR)
    (first, *_), (second, *_) = (
        [sent for sent in r.shared if isinstance(sent, Update)] for r in (one, other)
    )
    assert first.examples
    rate = 1.0 if first.kind == "gradient" else FAR.lr
    (claim,) = (claim for claim in claims_of(one) if claim.unit == "image")
    return first.examples * stretch(first, second) / (rate * QUIET["max_grad_norm"]), claim


QUIET = {"noise_multiplier": 0.0, "max_grad_norm": 1e-4}
"""Small enough that each photo's gradient is clipped."""


@pytest.mark.parametrize("before", quickly(BEFORE_TRAINING, *list(BEFORE_TRAINING)[1:]))
@pytest.mark.parametrize("method", quickly(METHODS, "fedprox", "solomon_woubie"))
def test_one_image_moves_dp_sgd_by_twice_the_clipping_norm_at_most(
    federate: Federate, method: str, before: str
) -> None:
    """Replacing is removing and adding: 2C, for methods as they wrap the training, or a gap."""
    simulation = federation(
        federate, method, ("dpsgd", QUIET), (before, dict(BEFORE_TRAINING[before]))
    )
    for color in (False, True):
        try:
            moved, claim = gradient_distance(simulation, color)
        except FedauditError:
            return  # the method refuses the defense
        gaps = {gap.what for gap in claim.gaps}
        excused = "update" in gaps or (color and "grayness" in gaps)
        assert moved > 0.01 or method == "fedface"  # which knows one person: the same label
        assert moved <= 2 * (1 + 1e-3) or excused


def test_a_template_that_trains_moves_every_gradient(federate: Federate) -> None:
    """FedFace's first round: one photo moves the mean feature, and that all gradients."""
    simulation = federation(federate, "fedface", ("dpsgd", QUIET))
    _, claim = gradient_distance(simulation)
    assert claim.broken
    assert {"update", "class_embeddings"} <= {gap.what for gap in claim.gaps}
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    later, _ = simulation.train(state, range(1, 2))
    again = claims_of(step(simulation, later, photos))[0]
    assert again.covers == ("update", "class_embeddings")  # both are the server's, and noised

"""What every registered federated method must do."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
import torch

from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create, describe, lookup, names
from fedaudit.core.shared import (
    Aggregate,
    ClassEmbeddings,
    ClusterCenters,
    Shared,
    SummedRows,
    Update,
    tensors_in,
)
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import share_of, training_of

BODY = ("body.",)
BACKBONE = ("body.", "embedding.")
EVERYTHING = ("body.", "embedding.", "head.")


@dataclass(frozen=True)
class Row:
    """A method on a tiny federation, and all that its clients share.

    Attributes:
        shares: In order: the kind, and the prefixes of *all* parameters that it has of the network
            (for kinds with tensors).
    """

    method: str
    shares: tuple[tuple[type[Any], tuple[str, ...]], ...]
    settings: tuple[tuple[str, Any], ...] = ()
    clients: int = 2


PLAIN: tuple[tuple[type[Any], tuple[str, ...]], ...] = ((Update, EVERYTHING),)
ROWS = (
    Row("fedsgd", PLAIN),
    Row("fedavg", PLAIN),
    Row("fedprox", PLAIN),
    Row(
        "fedface",
        ((Update, BACKBONE), (ClassEmbeddings, ())),
        (("pretrain_steps", 0), ("margin", 1.0)),  # a random network's features are near anyway
        clients=30,
    ),
    Row(
        "fedface",
        ((Aggregate, BACKBONE), (SummedRows, ())),
        (("pretrain_steps", 0), ("margin", 1.0), ("secure", True)),
        clients=30,
    ),
    Row("fedgc", ((Update, BACKBONE), (ClassEmbeddings, ()))),
    Row("fedgc", ((Aggregate, BACKBONE), (SummedRows, ())), (("secure", True),)),
    Row("privacyface", ((Update, BACKBONE), (ClusterCenters, ())), (("radius", 1.5),)),
    Row("private_projector", ((Update, BODY),), (("pretrain_steps", 0),)),
    Row("solomon_woubie", PLAIN),
    Row("solomon_woubie", ((Update, BACKBONE),), (("supervised", False),)),
    Row("solomon_woubie", ((Aggregate, EVERYTHING),), (("secure", True),)),
    Row("fedaffect", ((Update, EVERYTHING), (Update, BACKBONE))),
)
IDS = [f"{row.method}{dict(row.settings) or ''}" for row in ROWS]
each = pytest.mark.parametrize("row", ROWS, ids=IDS)

Federate = Callable[..., Simulation]


def made(federate: Federate, row: Row, **more: Any) -> Simulation:
    options: dict[str, Any] = {"network": "small_cnn", "clients": row.clients, **more}
    plain = federate(**options, local_steps=2, batch_size=4, lr=0.02)
    method = create("methods", row.method, dict(row.settings))
    return Simulation(**{**vars(plain), "method": method})


def test_every_registered_method_has_a_row() -> None:
    assert {row.method for row in ROWS} == set(names("methods"))


@each
def test_documents_what_it_shares_and_each_setting(row: Row) -> None:
    kind = lookup("methods", row.method)
    assert is_dataclass(kind)
    assert describe("methods", row.method)
    text = kind.__doc__ or ""
    assert "Shared:" in text
    assert "et al. (" in text or "& Deng (" in text
    for setting in fields(kind):
        assert f"\n        {setting.name}: " in text, setting.name
    method = create("methods", row.method, dict(row.settings))
    assert share_of(method) in ("gradient", "delta")
    training = training_of(method, NoDefense(), LocalTraining(lr=0.1, steps=2))
    assert isinstance(training, LocalTraining)
    with pytest.raises(AttributeError):
        method.anything = 1


@each
def test_the_capture_holds_what_is_shared_and_no_more(
    row: Row, federate: Federate, intercept: Callable[..., Capture]
) -> None:
    simulation = made(federate, row)
    captured = intercept(
        batch=2, training=LocalTraining(lr=0.02, batch_size=2), simulation=simulation
    )
    shared = captured.seen.shared
    assert [type(sent) for sent in shared] == [kind for kind, _ in row.shares]
    whole = dict(simulation_model(simulation).named_parameters())
    for sent, (_, prefixes) in zip(shared, row.shares, strict=True):
        if isinstance(sent, Update | Aggregate):
            expected = {n: p.shape for n, p in whole.items() if n.startswith(prefixes)}
            assert {n: t.shape for n, t in sent.tensors.items()} == expected
        elif isinstance(sent, ClassEmbeddings):
            people = simulation.split.clients[0]
            assert sent.rows.shape == (len(people), 128)
            assert sent.owners == tuple(range(len(people)))
        elif isinstance(sent, SummedRows):
            clients = simulation.split.clients
            assert sent.total.shape == (sum(map(len, clients)), 128)
            assert sent.owners == tuple(c for c, mine in enumerate(clients) for _ in mine)
            assert len(sent.weights) == len(clients)
        elif isinstance(sent, ClusterCenters):
            assert sent.centers.shape[1] == 128
            assert 1 <= len(sent.centers) <= 2
    # The control knows nothing of the client: not one tensor is left as it was.
    control = without_update(captured.seen, torch.Generator().manual_seed(0))
    for ours, noise in zip(tensors_in(shared), tensors_in(control.shared), strict=True):
        assert ours.shape == noise.shape
        assert float(ours.norm()) == 0 or not torch.equal(ours, noise)


def simulation_model(simulation: Simulation) -> torch.nn.Module:
    from fedaudit.models.build_network import build

    return build(simulation.spec(0))


@each
def test_rounds_repeat_can_be_split_and_leave_global_randomness(
    row: Row, federate: Federate
) -> None:
    small = {"clients": row.clients, "photos": 3, "held_out": 28 if row.clients == 2 else 10}
    before = torch.get_rng_state()
    simulation = made(federate, row, **small)
    together, _ = simulation.train(simulation.fresh(), range(1, 3))
    assert torch.equal(torch.get_rng_state(), before)
    again = made(federate, row, **small)
    first, _ = again.train(again.fresh(), range(1, 2))
    apart, _ = again.train(State.from_flat(first.flat()), range(2, 3))
    one, two = together.flat(), apart.flat()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(bool(value.isfinite().all()) for value in one.values())
    fresh = simulation.fresh().server
    assert set(fresh) <= set(together.server)
    moved = [name for name in fresh if not torch.equal(fresh[name], together.server[name])]
    assert moved
    # What stays on the devices is nowhere on the server, except what the method collects there.
    sent = {n for kind, p in row.shares if p for n in together.server if n.startswith(p)}
    assert set(together.server) - sent <= {"head.weight", "clusters.centers"}


@each
@pytest.mark.parametrize(
    ("defense", "settings"),
    [("dpsgd", {"noise_multiplier": 0.1}), ("private_projector", {"private": ("head.",)})],
)
def test_defenses_wrap_the_client(
    row: Row, defense: str, settings: dict[str, Any], federate: Federate
) -> None:
    """A round under a defense works; what it withholds leaves by no other door."""
    simulation = made(federate, row, defense=defense, settings=settings)
    fresh = simulation.fresh()
    photos = simulation.split.train[simulation.split.clients[0][0]][:2]
    training = LocalTraining(lr=0.02, steps=1, batch_size=2)

    def step() -> tuple[Shared, ...]:
        noise = torch.Generator().manual_seed(3)
        return simulation.step(fresh, 0, photos, training, noise).shared

    if defense == "dpsgd" and IDS[ROWS.index(row)] in UNSUPERVISED:
        with pytest.raises(Exception, match="DP-SGD clips the gradient of one image"):
            step()
        return
    shared = step()
    assert isinstance(shared[0], Update)
    if defense == "private_projector":
        assert not any(isinstance(sent, ClassEmbeddings) for sent in shared)
        for sent in shared:
            if isinstance(sent, Update):
                assert not any(name.startswith("head.") for name in sent.tensors)


UNSUPERVISED = ("solomon_woubie{'supervised': False}", "fedaffect")


@each
def test_attacks_on_updates_still_run(
    row: Row, federate: Federate, intercept: Callable[..., Capture]
) -> None:
    from fedaudit.core.errors import AttackError

    seen = intercept(simulation=made(federate, row)).seen if not hungry(row) else None
    if seen is None:
        seen = intercept(
            batch=2, training=LocalTraining(batch_size=2), simulation=made(federate, row)
        ).seen
    attack = create("attacks", "dlg", {"steps": 2, "restarts": 1})
    if seen.update is None:
        with pytest.raises(AttackError, match="shared no model update"):
            attack(seen, generator=torch.Generator())
        return
    if not any(bool(value.any()) for value in seen.update.tensors.values()):
        with pytest.raises(AttackError, match="zero everywhere"):  # FedFace's margin is kept
            attack(seen, generator=torch.Generator())
        return
    images = attack(seen, generator=torch.Generator()).images
    assert images.shape == (seen.batch_size, 3, 32, 32)
    assert bool(images.isfinite().all())


def hungry(row: Row) -> bool:
    """Whether it compares photos, so that one is not enough."""
    return dict(row.settings).get("supervised") is False

"""What every registered defense must do, whatever it is. A new defense adds one row to CASES."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from fedaudit.attacks.adaptive.assumptions import as_assumed, assume
from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientReturn
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.observation import DefenseFacts, LocalTraining
from fedaudit.core.registry import create, describe, lookup, names
from fedaudit.core.scenario import Adapt
from fedaudit.core.shared import Update, tensors_in
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import combine, share_of

CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "dpsgd": {"noise_multiplier": 0.1},
    "client_dp": {"noise_multiplier": 0.1, "max_norm": 0.5, "quantile": 0.5},
    "dplc": {"min_size": 2, "radius": 1.5},
    "private_projector": {},
    "clipping": {"max_norm": 0.5},
    "gaussian_noise": {"std": 0.01},
    "laplace_noise": {"std": 0.05, "of": "norm"},
    "sign": {},
    "top_k": {"pruned": 0.5},
    "ats": {"policies": ("translate_x:9 contrast:6", "rotate:5")},
    "random_pruning": {"pruned": 0.5},
    "dual_pruning": {"largest": 0.2},
    "soteria": {"pruned": 0.5, "probes": 4},
    "censor": {"trials": 2},
    "qsgd": {"levels": 8},
    "larger_batch": {"images": 2},
    "more_steps": {"steps": 3},
    "local_layers": {},
    "oasis": {"rotations": (90,), "flips": ("horizontal",)},
    "mixup": {"parts": 3},
    "instahide": {"parts": 3, "largest": 0.7},
    "precode": {"size": 16},
    "secure_aggregation": {"bits": 18, "dropout": 0.1},
    "concealed_samples": {"iterations": 2},
    "chain": {"of": ({"name": "clipping", "max_norm": 0.5}, {"name": "gaussian_noise"})},
}
IMAGES = {"oasis": 3, "concealed_samples": 2}
"""Images behind the update for each photo, where they are more than one."""
CROWDED = ("oasis", "mixup", "instahide", "concealed_samples")
"""Defenses that put one photo into several images, which DP-SGD's guarantee does not cover."""
PAIRS = [
    (a, b) if (i + j) % 2 else (b, a)
    for i, a in enumerate(CASES)
    for j, b in enumerate(CASES)
    if i <= j
]
"""Any two, in one of their orders: all orders would be half of the suite."""
NOT_MODELED = ("instahide", "mixup")
"""Defenses that a search without a face generator cannot take into account."""
UNSEEN = ("ats", "oasis", "mixup", "instahide", "concealed_samples", "censor")
"""Defenses that leave no mark in an update which an attack reads."""
PLAIN = ("fedavg", "fedprox", "fedsgd")
"""Methods that share one update of the whole network, as it was trained."""
TINY: dict[str, dict[str, Any]] = {
    "fedface": {"pretrain_steps": 0, "margin": 1.0},
    "privacyface": {"radius": 1.5},
    "private_projector": {"pretrain_steps": 0},
    "solomon_woubie": {"supervised": False},
}
"""Settings that make a method fit for a test."""
REFUSED = {
    ("more_steps", "fedsgd"): r'Write method = "fedavg"',
    ("dplc", "fedface"): "Lower min_size",
    ("precode", "privacyface"): "leaves no room",
    ("precode", "solomon_woubie"): "leaves no room",
    ("precode", "fedaffect"): "leaves no room",
    ("dpsgd", "solomon_woubie"): "it has no such gradient",
    ("dpsgd", "fedaffect"): "it has no such gradient",
    ("concealed_samples", "solomon_woubie"): "a photo alone has none",
    ("concealed_samples", "fedaffect"): "photos without labels",
    ("mixup", "fedaffect"): "Lower parts",
    ("instahide", "fedaffect"): "Lower parts",
}
"""Defenses that cannot work with a method (or with so few photos), and what they say."""

Federate = Callable[..., Simulation]


def run(federate: Federate, defense: str, method: str, seed: int = 0) -> ClientReturn:
    simulation = federate(
        network="small_cnn", defense=defense, settings=CASES[defense], method=method
    )
    person = simulation.split.clients[0][0]
    return simulation.step(
        simulation.fresh(),
        0,
        simulation.split.train[person][:3],
        LocalTraining(lr=0.05, steps=2, batch_size=2),
        torch.Generator().manual_seed(seed),
    )


def updates(returned: ClientReturn) -> list[Update]:
    return [shared for shared in returned.shared if isinstance(shared, Update)]


def test_every_registered_defense_has_a_row() -> None:
    assert set(CASES) == set(names("defenses"))


@pytest.mark.parametrize("defense", CASES)
def test_documented_and_frozen(defense: str) -> None:
    kind = lookup("defenses", defense)
    assert describe("defenses", defense)
    assert "Guarantee:" in kind.__doc__
    for setting in kind.__dataclass_fields__:
        assert re.search(rf"^ +(\w+, )*{setting}(, \w+)*: ", kind.__doc__, re.MULTILINE), setting
    with pytest.raises(AttributeError):
        create("defenses", defense, CASES[defense]).anything = 1


@pytest.mark.parametrize("defense", CASES)
def test_says_what_is_public(defense: str) -> None:
    facts = create("defenses", defense, CASES[defense]).facts()
    assert isinstance(facts, DefenseFacts)
    assert facts.name == defense
    assert set(CASES[defense]) <= set(facts.settings)
    assert (
        create("defenses", facts.name, facts.settings).facts() == facts
    )  # an attacker rebuilds it


@pytest.mark.parametrize("method", names("methods"))
@pytest.mark.parametrize("defense", CASES)
def test_composes_with_every_method(federate: Federate, defense: str, method: str) -> None:
    """A client's step is defended, or refused with what to do instead."""
    plain = federate(
        network="small_cnn",
        defense=defense,
        settings=CASES[defense],
        clients=30 if method == "fedface" else 2,
    )
    simulation = replace(plain, method=create("methods", method, TINY.get(method, {})))
    photos = simulation.split.train[simulation.split.clients[0][0]][:2]

    def step() -> ClientReturn:
        training = LocalTraining(lr=0.02, steps=1, batch_size=2)
        return simulation.step(simulation.fresh(), 0, photos, training, torch.Generator())

    if (defense, method) in REFUSED:
        with pytest.raises((ConfigError, DataError), match=REFUSED[defense, method]):
            step()
        return
    returned = step()
    sent = [value for shared in returned.shared for value in tensors_in(shared)]
    assert sent
    assert all(bool(value.isfinite().all()) and not value.requires_grad for value in sent)
    for update in updates(returned):
        assert not any(n.startswith(simulation.withheld) for n in update.tensors)


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("defense", CASES)
def test_keeps_names_shapes_and_types(federate: Federate, defense: str, method: str) -> None:
    simulation = federate(
        network="small_cnn", defense=defense, settings=CASES[defense], method=method
    )
    if (defense, method) in REFUSED:
        return
    fresh = simulation.fresh()
    returned = run(federate, defense, method)
    (update,) = updates(returned)
    assert update.kind == share_of(simulation.method)
    assert update.examples == 3 * IMAGES.get(defense, 1)
    assert set(update.tensors) == set(fresh.server)
    for name, value in update.tensors.items():
        assert value.shape == fresh.server[name].shape
        assert value.dtype == fresh.server[name].dtype
        assert not value.requires_grad
    withheld = simulation.withheld
    assert all(name.startswith(withheld) for name in returned.kept)
    after = combine(simulation.method, fresh.server, [update], LocalTraining())
    assert set(after) == set(fresh.server)
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert any(not torch.equal(after[name], fresh.server[name]) for name in after)


@pytest.mark.parametrize("defense", CASES)
def test_deterministic_without_touching_global_randomness(federate: Federate, defense: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (run(federate, defense, "fedavg", seed) for seed in (0, 0, 3))
    assert torch.equal(torch.get_rng_state(), before)
    one, two, three = (updates(r)[0].tensors for r in (first, again, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_defenses_compose_with_each_other(federate: Federate, outer: str, inner: str) -> None:
    """Any two in a row: what either withholds is withheld."""
    wrap = create("defenses", outer, CASES[outer])
    within = create("defenses", inner, CASES[inner])

    class Both:
        def __call__(self, step: Any) -> Any:
            return wrap(within(step))

        def facts(self) -> DefenseFacts:
            return DefenseFacts("both", {}, wrap.facts().withheld + within.facts().withheld)

    simulation = federate(network="small_cnn")
    both = Simulation(**{**vars(simulation), "defense": Both()})
    person = both.split.clients[0][0]

    def train() -> ClientReturn:
        photos = both.split.train[person][:1]
        return both.step(both.fresh(), 0, photos, LocalTraining(), torch.Generator())

    if {outer, inner} & set(CROWDED) and "dpsgd" in (outer, inner):
        with pytest.raises(ConfigError, match="one photo is in several"):
            train()
        return
    returned = train()
    (update,) = updates(returned)
    assert not any(name.startswith(both.withheld) for name in update.tensors if both.withheld)


@pytest.mark.parametrize("defense", CASES)
def test_attacks_say_whether_they_knew_it(defense: str, intercept: Callable[..., Capture]) -> None:
    """A short search on one photo, told of the defense, left to the numbers, and blind."""
    captured = intercept(
        network="small_cnn", method="fedavg", defense=defense, settings=CASES[defense]
    )
    seen = captured.seen
    attack = create("attacks", "inverting_gradients", {"steps": 2, "polish": 0})
    words = {}
    for told in get_args(Adapt):
        taken = assume(seen, told)
        made = as_assumed(attack(taken, generator=torch.Generator().manual_seed(0)), seen, told)
        words[told] = made.adaptive
        assert bool(made.images.isfinite().all())
    if defense == "none":
        assert words == {"known": "none needed", "estimated": "estimated", "no": "none needed"}
        return
    known = "no" if defense in NOT_MODELED else "known"
    estimated = "no" if defense in UNSEEN else "estimated"
    assert words == {"known": known, "estimated": estimated, "no": "no"}


def test_none_is_the_client_itself() -> None:
    def step(_: Any) -> ClientReturn:
        return ClientReturn(())

    assert create("defenses", "none", {})(step) is step

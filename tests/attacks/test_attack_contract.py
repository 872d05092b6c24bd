"""What every registered attack must do, whatever it is. A new attack adds one row to TINY."""

import inspect
import random
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.captures.simulate.simulated_capture import withhold
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, ManipulatingAttack, category_of
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create, describe, lookup, names
from fedaudit.core.threat_models import check_knowledge, threat_model

pytestmark = pytest.mark.usefixtures("drawn_once")
TINY: dict[str, dict[str, Any]] = {
    "inverting_gradients": {"steps": 12},
    "gan_inversion": {
        "candidates": 4,
        "latent_steps": 4,
        "stage_steps": 3,
        "pixel_steps": 3,
        "rounds": 2,
    },
    "map_inversion": {"candidates": 4, "descent_steps": 10, "solve_steps": 0, "search_steps": 10},
    "liu_2021": {"steps": 10, "rounds": 2},
    "gias": {"latent_steps": 8, "weight_steps": 2},
    "ggl": {"generations": 10, "population": 4},
    "gifd": {"latent_steps": 4, "stages": [2, 3], "stage_steps": 3},
    "gion": {"steps": 12, "width": 8},
    "dlg": {"steps": 6, "restarts": 2},
    "idlg": {"steps": 12},
    "grad_inversion": {"steps": 12, "restarts": 2},
    "analytic": {},
    "r_gap": {},
    "learned_inversion": {
        "faces": 24,
        "epochs": 2,
        "width": 256,
        "directions": 8,
        "hidden": 16,
        "cache": "off",
    },
    "feature_decoder": {
        "faces": 16,
        "epochs": 1,
        "width": 8,
        "refine_steps": 4,
        "cache": "off",
    },
    "subspace_matching": {"steps": 10, "polish": 2},
    "spear": {"samples": 600},
    "imprint": {"bins": 64},
    "trap_weights": {"rows": 128},
    "fishing": {"inverter": "inverting_gradients", "settings": {"steps": 12}},
    "template_inversion": {
        "limit": 2,
        "faces": 40,
        "components": 8,
        "steps": 10,
        "cache": "off",
    },
}
NETWORK = {
    "analytic": "mlp",
    "r_gap": "plain_cnn",
    "spear": "mlp",
    "dlg": "small_cnn",
    "idlg": "small_cnn",
}
"""The network that an attack is tried on, where it is another than `face`."""
CLOSED_FORM = {
    "imprint",
    "trap_weights",
    "analytic",
    "spear",
    "learned_inversion",
    "feature_decoder",
    "r_gap",
    "template_inversion",
}
"""Attacks that solve or have learned: no iterations, no history, perhaps nothing random."""
BLIND_TO_NOISE = {"imprint", "trap_weights", "analytic", "spear", "r_gap", "template_inversion"}
"""Attacks that take noise for signal, and say that they did not adapt to it."""
ONE_IMAGE = {"r_gap"}
"""Attacks on single images: they refuse a batch."""
WHOLE_MODEL = {"r_gap", "template_inversion"}
"""Attacks that refuse an update from which a defense withholds the head."""
TEMPLATES = {"template_inversion"}
"""Attacks on rows that only some methods share: two of FedGC's, whatever the batch and method."""
MALICIOUS = {"imprint", "trap_weights", "fishing"}
"""Attacks that choose what the server sends: captured through their broadcast, model G for D."""
SINGLE = {"fishing"}
"""Attacks that search for one image, whatever the batch."""
UNLABELED = {("imprint", "dpsgd"), ("trap_weights", "dpsgd")}
"""Attacks that read which label goes with which image from lengths, which a defense changes."""
PRESETS = ("liu_2021", "gias", "ggl", "gifd", "gion", "dlg", "idlg", "grad_inversion")
"""Presets of the engine of `inverting_gradients` and `gan_inversion`, which stand for them."""
Intercept = Callable[..., Capture]


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n in PRESETS else n for n in TINY],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def attack(name: str) -> Any:
    return create("attacks", name, TINY[name])


@pytest.fixture(scope="module")
def intercept(name: str, attack: Any, intercept: Intercept) -> Intercept:
    """An update of the network that the attack is for, from a server that sends what it wants.

    The same settings give the same update, not another one like it.
    """
    usual = {"network": NETWORK.get(name, "face")}
    if name in TEMPLATES:
        usual["method"] = "fedgc"
    made: dict[str, Capture] = {}

    def once(**settings: Any) -> Capture:
        named = repr(sorted(settings.items()))
        if named not in made:
            malicious = {"threat": "G", "malicious": attack} if name in MALICIOUS else {}
            made[named] = intercept(**{**settings, **usual, **malicious})
        return made[named]

    def capture(*, threat: str = "D", **settings: Any) -> Capture:
        settings = {"batch": 1, "defense": "none", **settings}
        if name not in MALICIOUS:
            return once(threat=threat, **settings)
        full = once(**settings)
        return replace(full, seen=withhold(full.seen, threat_model(threat.replace("D", "G"))))

    return capture


Attacked = Callable[[int, str], tuple[Reconstruction, list[tuple[int, int, float]]]]


@pytest.fixture(scope="module")
def attacked(attack: Any, intercept: Intercept) -> Attacked:
    """What the attack returns on a batch behind a defense, and its progress; run once."""
    done = {}

    def run(batch: int, defense: str) -> tuple[Reconstruction, list[tuple[int, int, float]]]:
        if (batch, defense) not in done:
            steps: list[tuple[int, int, float]] = []
            seen = intercept(batch=batch, defense=defense).seen
            result = attack(seen, generator=noise(), progress=lambda *row: steps.append(row))
            done[batch, defense] = result, steps
        return done[batch, defense]

    return run


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_registered_attack_has_a_row() -> None:
    assert set(TINY) == set(names("attacks"))


def test_is_a_frozen_object_with_documented_settings(name: str, attack: Any) -> None:
    """A class, or a function that presets one."""
    kind: Any = lookup("attacks", name)
    assert is_dataclass(attack)
    assert not isinstance(attack, type)
    parameters = inspect.signature(kind).parameters
    documentation = kind.__doc__ or ""
    assert describe("attacks", name)
    assert re.search(r"et al\.[^.]*\d{4}", documentation), "name the paper"
    for setting, parameter in parameters.items():
        assert re.search(rf"^ +(\w+, )*{setting}(, \w+)*: ", documentation, re.MULTILINE)
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
    with pytest.raises(AttributeError):
        attack.anything = 1  # type: ignore[attr-defined]


def test_declares_what_it_needs_and_reads(name: str, attack: Any) -> None:
    assert isinstance(attack.needs, frozenset)
    assert attack.needs <= set(Knowledge)
    assert Knowledge.MODEL in attack.needs
    assert Knowledge.LABELS not in attack.needs  # threat models A to H grant them nowhere
    assert attack.reads
    assert all(is_dataclass(kind) for kind in attack.reads)
    with pytest.raises(KnowledgeError, match=name):
        check_knowledge(name, attack, threat_model("A"))
    assert (Knowledge.MANIPULATION in attack.needs) == (name in MALICIOUS)
    assert isinstance(attack, ManipulatingAttack) == (name in MALICIOUS)
    check_knowledge(name, attack, threat_model("G" if name in MALICIOUS else "D"))


def test_declares_its_category(name: str, attack: Any) -> None:
    category = category_of(attack)
    assert category is not AttackCategory.OTHER
    assert (category is AttackCategory.MALICIOUS_SERVER) == (name in MALICIOUS)
    assert (category is AttackCategory.TEMPLATE) == (name in TEMPLATES)


def test_an_attack_that_declares_no_category_counts_as_other() -> None:
    assert category_of(object()) is AttackCategory.OTHER
    assert category_of(SimpleNamespace(category="made up")) is AttackCategory.OTHER
    assert category_of(SimpleNamespace(category="learned inversion")) is AttackCategory.LEARNED


def test_takes_an_observation_and_nothing_else(
    name: str, attack: Any, intercept: Intercept
) -> None:
    signature, hints = inspect.signature(attack.__call__), get_type_hints(type(attack).__call__)
    parameters = list(signature.parameters)
    assert parameters[:3] == ["seen", "generator", "progress"]
    assert name in CLOSED_FORM or parameters[3:] == ["checkpoint"]
    assert hints["seen"] is Observation
    assert hints["return"] is Reconstruction
    with pytest.raises(AttributeError):
        attack(intercept(), generator=noise())


@pytest.mark.parametrize(
    ("defense", "batch"),
    [
        ("none", 1),
        pytest.param("none", 2, marks=pytest.mark.slow),
        ("dpsgd", 2),
        ("dplc", 1),
        pytest.param("private_projector", 2, marks=pytest.mark.slow),
    ],
)
def test_meets_every_defense(name: str, attacked: Attacked, defense: str, batch: int) -> None:
    withheld = defense in ("dplc", "private_projector")
    if (batch > 1 and name in ONE_IMAGE) or (withheld and name in WHOLE_MODEL):
        with pytest.raises(AttackError, match=r"[Uu]se "):
            attacked(batch, defense)
        return
    result, steps = attacked(batch, defense)
    batch = 2 if name in TEMPLATES else batch
    assert isinstance(result, Reconstruction)
    assert result.images.shape == (batch, 3, 32, 32)
    assert result.images.dtype == torch.float32
    assert not result.images.requires_grad
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert result.labels.shape == (batch,)
    assert result.labels.dtype == torch.int64
    unlabeled = withheld or (name, defense) in UNLABELED
    assert (result.labels == -1).all() if unlabeled else (result.labels >= 0).all()
    assert np.isfinite(result.objective)
    if name not in CLOSED_FORM:
        assert result.iterations >= 10
        assert result.gradient_evaluations >= 10 * (1 if name in SINGLE else batch)
        assert result.history
    assert result.seconds > 0
    adapted = "no" if defense == "dpsgd" and name in BLIND_TO_NOISE else "known"
    assert result.adaptive == ("none needed" if defense == "none" else adapted)
    assert steps
    assert all(0 <= done <= of for done, of, _ in steps)
    assert [step[0] for step in steps] == sorted({step[0] for step in steps})


def test_deterministic_without_side_effects_and_blind_to_the_secret(
    name: str,
    attack: Any,
    attacked: Attacked,
    intercept: Intercept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second run finds the photos overwritten and every `Secret` closed, and ends the same."""
    captured = deepcopy(intercept())  # what shared memory before still does
    seen, secret = captured.seen, captured.secret
    assert seen.update is not None
    assert secret is not None
    tensors = {**seen.before, **{f"sent {k}": v for k, v in seen.update.tensors.items()}}
    copies = {key: value.clone() for key, value in tensors.items()}
    states = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    first, _ = attacked(1, "none")
    secret.images.fill_(float("nan"))
    with monkeypatch.context() as patch:
        patch.setattr(Secret, "__getattribute__", refuse)
        again = attack(seen, generator=noise(0))
        other = None if name in CLOSED_FORM else attack(seen, generator=noise(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])
    assert random.getstate() == states[2]
    assert torch.equal(first.images, again.images)
    assert first.objective == again.objective
    assert first.history == again.history
    assert other is None or not torch.equal(first.images, other.images)
    assert all(torch.equal(copies[key], value) for key, value in tensors.items())
    assert not any(value.requires_grad for value in tensors.values())


def test_refuses_what_the_threat_model_withholds(attack: Any, intercept: Intercept) -> None:
    with pytest.raises(KnowledgeError, match="number and size"):
        attack(intercept(threat="A").seen, generator=noise())


def test_works_on_deltas_and_without_knowing_the_defense(
    name: str, attack: Any, intercept: Intercept
) -> None:
    seen = intercept(method="fedavg", threat="B").seen
    assert seen.training is None
    result = attack(replace(seen, defense=None), generator=noise())
    assert result.adaptive == "estimated"
    assert result.images.shape == (2 if name in TEMPLATES else 1, 3, 32, 32)


def refuse(secret: Secret, attribute: str) -> Any:
    raise AssertionError(f"Secret.{attribute} was read")


class InterruptedByTestError(Exception):
    pass


@pytest.mark.slow
def test_goes_on_where_it_was_interrupted(
    name: str, attack: Any, attacked: Attacked, intercept: Intercept, tmp_path: Path
) -> None:
    """In the midst of a batch, and the end is the same as without a break, to the bit."""
    if name in CLOSED_FORM:
        return
    seen = intercept(batch=2).seen
    whole, _ = attacked(2, "none")
    checkpoint = Checkpoint(tmp_path / "kept.safetensors", every=0)
    with pytest.raises(InterruptedByTestError):
        attack(seen, generator=noise(), checkpoint=Saves(checkpoint, 2))
    again = attack(seen, generator=noise(), checkpoint=checkpoint)
    assert torch.equal(again.images, whole.images)
    assert again.objective == whole.objective
    assert again.iterations == whole.iterations
    assert again.history == whole.history
    assert not checkpoint.path.exists()


@dataclass(frozen=True)
class Saves:
    """A checkpoint whose machine dies after it has been written `limit` times."""

    inner: Checkpoint
    limit: int
    every: float = 0.0
    count: list[int] = field(default_factory=list)

    def save(self, *what: Any) -> None:
        self.inner.save(*what)
        self.count.append(1)
        if len(self.count) == self.limit:
            raise InterruptedByTestError

    def load(self, fingerprint: str) -> Any:
        return self.inner.load(fingerprint)

    def clear(self) -> None:
        self.inner.clear()

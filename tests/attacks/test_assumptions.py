"""Attacks adapt to what was found out of the defense, and say so."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedaudit.attacks.adaptive.assumptions import as_assumed, assume, distance_for, how_adaptive
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.core.capture import Capture
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Adapt
from fedaudit.core.shared import Update
from fedaudit.scoring.image_metrics import PSNR, SSIM

Intercept = Callable[..., Capture]


def pruned(seen: Observation, share: float) -> Observation:
    """Only the largest entries are sent; zeros stand for the others."""
    assert seen.update is not None
    flat = torch.cat([value.flatten().abs() for value in seen.update.tensors.values()])
    least = flat.topk(round((1 - share) * len(flat))).values[-1]
    tensors = {n: v * (v.abs() >= least) for n, v in seen.update.tensors.items()}
    return replace(seen, shared=(Update(seen.update.kind, tensors),), defense=None)


@pytest.mark.slow  # a long search
def test_what_was_pruned_is_no_evidence(intercept: Intercept) -> None:
    """90 % of the entries are zeros: an attack that takes them for numbers is stopped by them."""
    captured = intercept(network="small_cnn")
    assert captured.secret is not None
    seen = pruned(captured.seen, 0.9)
    facts = DefenseFacts("top_k", {"pruned": 0.9}, estimated=True)
    attack = create("attacks", "inverting_gradients", {"steps": 120})
    quality = {}
    for name, defense in (("no", ()), ("estimated", (facts,))):
        made = attack(replace(seen, defense=defense), generator=torch.Generator().manual_seed(0))
        quality[name] = float(PSNR()(captured.secret.images, made.images).mean())
    assert made.adaptive == "estimated"
    assert quality["estimated"] > quality["no"] + 6


def test_the_distance_suits_the_defense(intercept: Intercept) -> None:
    seen = intercept().seen
    sparse = replace(seen, defense=(DefenseFacts("top_k", {}),))
    assert distance_for(adapt_to(seen), "cosine") == "cosine"
    assert distance_for(adapt_to(sparse), "cosine") == "masked"
    assert distance_for(adapt_to(sparse), "l2") == "l2"  # a published choice stays


def test_what_nobody_stated_is_estimated(intercept: Intercept) -> None:
    seen = intercept().seen
    clipped = DefenseFacts("clipping", {"max_norm": 1.0})
    assert how_adaptive(replace(seen, defense=(clipped,))) == "known"
    assert how_adaptive(replace(seen, defense=(replace(clipped, estimated=True),))) == "estimated"
    other = DefenseFacts("something new", {}, estimated=True)
    assert how_adaptive(replace(seen, defense=(clipped, other))) == "no"


def test_what_an_attacker_takes_for_true(intercept: Intercept) -> None:
    seen = intercept(defense="sign").seen
    assert assume(seen, "known") is seen
    assert assume(seen, "estimated").defense is None
    assert assume(seen, "no").defense == (DefenseFacts("none", {}),)
    made = Reconstruction(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    assert as_assumed(made, seen, "no").adaptive == "no"
    undefended, stated = intercept().seen, replace(made, adaptive="none needed")
    assert as_assumed(stated, undefended, "no").adaptive == "none needed"
    assert as_assumed(made, undefended, "no").adaptive == "no"  # an attack that does not say so
    assert as_assumed(made, seen, "estimated") is made


ATS = {"name": "ats", "policies": ["rotate:5"]}
NOISE = {"name": "gaussian_noise", "std": 1.0, "of": "norm"}
FAINT = {"name": "gaussian_noise", "std": 1e-6, "of": "norm"}
CLIPPING = {"name": "clipping", "max_norm": 0.1}


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        (({"name": "none"},), "estimated"),  # none is needed
        ((CLIPPING,), "estimated"),  # nor here: the direction stays
        ((CLIPPING, NOISE), "estimated"),
        ((FAINT,), "no"),
        ((ATS,), "no"),
        ((ATS, NOISE), "no"),  # one of the two was read
    ],
)
def test_estimated_is_what_was_read_of_each_defense_in_use(
    parts: tuple[dict[str, object], ...], word: str, intercept: Intercept
) -> None:
    """Whether or not the threat model lets the attacker know of any."""
    captured = intercept(network="lenet", defense="chain", settings={"of": parts})
    secret, untold = captured.secret, replace(captured.seen, defense=None)
    assert secret is not None
    assert secret.defense == captured.seen.defense
    attack = create("attacks", "inverting_gradients", {"steps": 1, "polish": 0})
    made = attack(untold, generator=torch.Generator().manual_seed(0))
    assert as_assumed(made, captured.seen, "estimated").adaptive == word
    assert as_assumed(made, untold, "known", secret.defense).adaptive == word
    # In a recording nobody knows what is in use.
    assert as_assumed(made, untold, "known").adaptive == "estimated"


def test_nothing_is_read_off_what_is_no_update(intercept: Intercept) -> None:
    seen = replace(intercept().seen, shared=())
    assert how_adaptive(replace(seen, defense=None)) == "no"


def test_what_an_estimate_shows_but_an_attack_cannot_meet(intercept: Intercept) -> None:
    """Closed forms solve equations that noise breaks, whoever tells them of it."""
    seen = replace(intercept(defense="gaussian_noise", settings={"std": 0.1}).seen, defense=None)
    assert how_adaptive(seen) == "estimated"
    assert how_adaptive(seen, exact=True) == "no"


@pytest.mark.parametrize(
    ("defense", "settings", "attack", "margin"),
    [
        pytest.param("sign", {}, "gan_inversion", 0.1, marks=pytest.mark.slow),
        pytest.param("top_k", {"pruned": 0.99}, "gan_inversion", 0.1, marks=pytest.mark.slow),
        ("gaussian_noise", {"std": 1.0, "of": "norm"}, "inverting_gradients", 0.1),
    ],
)
@pytest.mark.slow
def test_who_knows_the_defense_does_better(
    defense: str, settings: dict[str, object], attack: str, margin: float, intercept: Intercept
) -> None:
    short: dict[str, float] = {"latent_steps": 5, "stage_steps": 10, "pixel_steps": 45}
    if defense == "sign":  # with twice as many, who does not know signs is hardly worse
        short = {"latent_steps": 10, "stage_steps": 20, "pixel_steps": 75}
    if attack == "inverting_gradients":
        # Smoothness does a part of what knowing the noise does, and with colors apart more of it:
        # 0.62 and 0.56 with a weight of 0.05. Without any, 0.63 and 0.47 (four targets).
        short = {"steps": 100, "polish": 0, "total_variation": 0.0}
    adapts: tuple[Adapt, ...] = ("known", "estimated", "no")
    quality = dict.fromkeys(adapts, 0.0)
    for target in (0, 1):  # where a search ends is by chance, which processors decide, too
        captured = intercept(target=target, defense=defense, settings=settings)
        assert captured.secret is not None
        for told in adapts:
            seen = assume(captured.seen, told)
            generator = torch.Generator().manual_seed(0)
            made = create("attacks", attack, short)(seen, generator=generator)
            assert as_assumed(made, captured.seen, told).adaptive == told
            quality[told] += float(SSIM()(captured.secret.images, made.images)[0]) / 2
    assert quality["known"] > quality["no"] + margin, quality
    assert quality["estimated"] > quality["no"] + margin, quality

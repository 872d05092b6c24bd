"""What a defense does to a gradient is found out by trying it, whatever its name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.adaptation import through
from fedaudit.attacks.adaptive.assumptions import assume, how_adaptive
from fedaudit.attacks.adaptive.defense_adaptation import DefenseAdaptation
from fedaudit.attacks.adaptive.orthogonalized import ORTHOGONALIZED
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.adaptive.transform_behavior import behavior, drops_columns, followed
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.observation import DefenseFacts
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.censor import orthogonal_gradients
from fedaudit.defenses.gradient_transforms import (
    Batch,
    GradientTransform,
    KeepRandom,
    Noise,
    Quantize,
    clip,
    keep_inputs,
    keep_largest,
    keep_middle,
    keep_signs,
)

Intercept = Callable[..., Capture]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probe() -> dict[str, Tensor]:
    generator = drawn(3)
    return {
        "a": torch.randn(1, 60, 40, generator=generator),
        "b": 1e-2 * torch.randn(1, 500, generator=generator),
    }


def rounded(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """To the next whole number, always alike."""
    del generator
    return {name: value.round() for name, value in batch.items()}


def cubed(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """A bend with a derivative of its own."""
    del generator
    return {name: value**3 for name, value in batch.items()}


def scattered(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Nothing of the gradient but its length."""
    return {
        name: torch.randn(value.shape, generator=generator) * value.norm()
        for name, value in batch.items()
    }


@pytest.mark.parametrize(
    ("transform", "kind"),
    [
        (clip(0.1), "kept"),
        (Noise(0.3), "noise"),
        (Noise(0.3, law="laplace"), "noise"),
        (Quantize(4), "noise"),
        (keep_largest(0.05), "sparse"),
        (keep_middle(0.05, 0.75), "sparse"),
        (KeepRandom(0.3), "sparse"),
        (keep_signs(), "bent"),
        (rounded, "bent"),
        (cubed, "followed"),
        (scattered, "lost"),
        (orthogonal_gradients, "orthogonalized"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_acts_are_told_apart_by_what_they_do(transform: GradientTransform, kind: str) -> None:
    assert behavior(transform, probe())[0] == kind


def test_columns_that_are_left_out_are_told_from_entries() -> None:
    """Of weights `[out, in]` and of a bias, which has none; with one more defense, too."""
    some = {"a.weight": torch.randn(1, 6, 8), "a.bias": torch.randn(1, 6)}
    kept = torch.arange(8) % 3 > 0
    assert drops_columns(keep_inputs("a.weight", kept), some)
    assert not drops_columns(keep_largest(0.3), some)
    assert not drops_columns(keep_inputs("a.bias", kept[:6]), some)


@pytest.mark.parametrize(
    ("defenses", "columns"),
    [
        (("soteria",), True),
        (("top_k",), False),
        (("soteria", "top_k"), False),
        (("top_k", "soteria"), False),
    ],
)
def test_columns_are_all_that_is_missing(
    defenses: tuple[str, ...], columns: bool, intercept: Callable[..., Capture]
) -> None:
    facts = tuple(DefenseFacts(name, {}) for name in defenses)
    adaptation = adapt_to(replace(intercept().seen, defense=facts))
    assert adaptation.sparse
    assert adaptation.columns == columns


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_the_noise_of_an_act_is_measured(law: str) -> None:
    assert behavior(Noise(0.3, law=law), probe())[1] == pytest.approx(0.3, rel=0.05)  # type: ignore[arg-type]


def test_what_is_flat_is_followed_straight_through() -> None:
    transform = followed(rounded, probe())
    leaf = torch.tensor([0.2, 1.7, -0.6], requires_grad=True)
    (made,) = through((transform,), [leaf], ["a"])
    assert made.tolist() == [0.0, 2.0, -1.0]
    (slope,) = torch.autograd.grad((made * torch.tensor([1.0, 2.0, 3.0])).sum(), leaf)
    assert slope.tolist() == [1.0, 2.0, 3.0]


def test_what_has_a_derivative_keeps_it() -> None:
    leaf = torch.tensor([2.0], requires_grad=True)
    (made,) = through((followed(cubed, probe()),), [leaf], ["a"])
    assert torch.autograd.grad(made.sum(), leaf)[0].item() == pytest.approx(12.0)


def test_a_draw_is_never_followed_its_mean_is() -> None:
    value = torch.tensor([1.0, -2.0])
    (made,) = through((followed(KeepRandom(0.25, rescaled=True), probe()),), [value], ["a"])
    torch.testing.assert_close(made, value)


def test_acts_see_what_was_sent() -> None:
    """A change of weights is about the learning rate times as long as a gradient, and negative."""
    small, large = torch.full((4,), 1e-3), torch.full((4,), 10.0)
    for value, stays in ((small, True), (large, False)):
        (made,) = through((clip(1.0),), [value], ["a"], units=-0.1)
        assert torch.allclose(made, value) == stays
        assert bool((made > 0).all())


def test_noise_hides_neither_gray_nor_labels_from_who_knows_it(intercept: Intercept) -> None:
    settings = {"std": 1.0, "of": "norm"}
    captured = intercept(batch=4, defense="gaussian_noise", settings=settings)
    assert captured.secret is not None
    truth = sorted(captured.secret.labels.tolist())
    for told in ("known", "estimated"):
        evidence = gather(assume(captured.seen, told))
        assert evidence.grayscale
        assert evidence.labels is not None
        assert evidence.labels.tolist() == truth
    blind = gather(assume(captured.seen, "no"))
    assert not blind.grayscale
    assert blind.labels is not None
    assert blind.labels.tolist() != truth


def test_the_label_shows_through_four_times_its_noise(intercept: Intercept) -> None:
    settings = {"std": 4.0, "of": "norm"}
    for target in range(3):
        captured = intercept(target=target, defense="gaussian_noise", settings=settings)
        assert captured.secret is not None
        labels = gather(captured.seen).labels
        assert labels is not None
        assert labels.tolist() == captured.secret.labels.tolist()


@pytest.mark.parametrize(
    ("defense", "settings", "batch", "known"),
    [
        ("top_k", {"pruned": 0.99}, 1, 0.1),
        ("top_k", {"pruned": 0.9}, 4, 0.3),
        ("random_pruning", {"pruned": 0.9}, 1, 0.99),
        ("soteria", {"pruned": 0.6}, 1, 0.39),
        ("soteria", {"pruned": 0.6}, 4, 0.39),
    ],
)
def test_maps_follow_from_gradients_with_gaps(
    defense: str, settings: dict[str, float], batch: int, known: float, intercept: Intercept
) -> None:
    """What is known of the maps is exact: neither pruning nor a mask changes what is left."""
    captured = intercept(batch=batch, defense=defense, settings=settings)
    assert captured.secret is not None
    evidence = gather(captured.seen)
    entry = evidence.first_fc
    assert entry is not None
    assert entry.known is not None
    assert float(entry.known.mean()) > known
    with torch.no_grad():
        true = entry.known_part(evidence.model.features(captured.secret.images))  # type: ignore[operator]
    inside = (true @ entry.span.T).square().sum(1) / true.square().sum(1)
    assert float(inside.min()) > 0.999
    blind = gather(assume(captured.seen, "no")).first_fc
    assert blind is None or blind.known is None


@pytest.mark.slow
def test_what_cannot_be_modeled_is_said(intercept: Intercept) -> None:
    """Lengths of the mean gradient of several photos, or under noise, say nothing of one photo."""
    captured = intercept(defense="censor", batch=2)
    assert adapt_to(captured.seen).missed == ("censor",)
    noised = {"of": ["censor", {"name": "gaussian_noise", "std": 0.1}]}
    adaptation = adapt_to(intercept(defense="chain", settings=noised).seen)
    assert set(adaptation.missed) == {"censor", "gaussian_noise"}
    assert not adaptation.special


def test_what_was_orthogonalized_gives_no_closed_form(intercept: Intercept) -> None:
    evidence = gather(intercept(defense="censor", rounds_seen=3).seen)
    assert evidence.adaptation.special == (ORTHOGONALIZED,)
    assert not evidence.adaptation.missed
    assert evidence.first_fc is None
    assert evidence.labels is None
    assert not evidence.clean
    for name, value in evidence.every_round.items():
        assert value.shape == (3, *evidence.target[name].shape)
        assert torch.equal(value[0], evidence.target[name])


def test_pruning_does_not_hide_the_label(intercept: Intercept) -> None:
    """Most rows of the head are gone; what is left of all layers behind the map tells."""
    for target in range(3):
        captured = intercept(target=target, defense="top_k", settings={"pruned": 0.99})
        assert captured.secret is not None
        evidence = gather(captured.seen)
        assert evidence.labels is not None
        assert evidence.labels.tolist() == captured.secret.labels.tolist()
        assert evidence.first_fc is not None
        assert evidence.first_fc.maps is not None
        assert float(evidence.first_fc.maps.sum()) > 0


@pytest.mark.parametrize(
    ("settings", "gray"),
    [
        ({"levels": 4, "bucket": 512}, False),
        ({"levels": 16, "bucket": 512}, False),
        ({"levels": 4, "bucket": None}, False),
        ({"levels": 4, "norm": "max"}, True),
    ],
)
def test_the_noise_of_rounding_is_known_of_each_parameter(
    settings: dict[str, Any], gray: bool, intercept: Intercept
) -> None:
    """It goes with what is rounded; gray photos are seen to be gray where colors would show."""
    captured, plain = intercept(defense="qsgd", settings=settings), intercept().seen.update
    sent = captured.seen.update
    assert plain is not None
    assert sent is not None
    adaptation = adapt_to(captured.seen)
    error = {n: v - plain.tensors[n] for n, v in sent.tensors.items()}
    whole = torch.cat([v.flatten() for v in error.values()]).square().mean().sqrt()
    assert adaptation.noise == pytest.approx(float(whole), rel=0.1)
    for name in ("body.1.weight", "embedding.weight", "head.weight"):
        told = adaptation.std_of(name)
        assert told == pytest.approx(float(error[name].square().mean().sqrt()), rel=0.2)
    assert max(adaptation.noises.values()) > 2 * min(adaptation.noises.values())
    for told_of in ("known", "estimated"):
        assert gather(assume(captured.seen, told_of)).grayscale is gray


def test_noise_that_is_even_has_one_size(intercept: Intercept) -> None:
    settings = {"std": 1.0, "of": "norm"}
    captured = intercept(defense="gaussian_noise", settings=settings)
    adaptation = adapt_to(captured.seen)
    assert not adaptation.noises
    assert adaptation.std_of("head.weight") == adaptation.noise


@pytest.mark.parametrize("loud", [1.0, 3.0, 10.0])
def test_colors_that_noise_hides_are_not_taken_for_gray(
    loud: float, intercept: Intercept, faces: FaceSet
) -> None:
    """Where noise leaves the brightness alone to be seen, nothing is said of color."""
    tint = torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    colored = replace(faces, images=faces.images * tint)
    noise = {"std": loud, "of": "norm"}
    for seed in range(4):
        how: dict[str, Any] = {"defense": "gaussian_noise", "settings": noise, "seed": seed}
        assert not gather(intercept(faces=colored, **how).seen).grayscale
        if loud > 1:
            assert not gather(intercept(**how).seen).grayscale


def test_colors_are_not_taken_for_noise(intercept: Intercept, faces: FaceSet) -> None:
    tint = torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    colored = replace(faces, images=faces.images * tint)
    captured = intercept(faces=colored, defense="qsgd", settings={"levels": 16, "bucket": 512})
    assert not gather(captured.seen).grayscale


@pytest.mark.parametrize(
    "facts",
    [
        DefenseFacts("top_k", {"pruned": None}),
        DefenseFacts("client_dp", {"of another version": 1}),
        DefenseFacts("concealed_samples", {"each": "?"}),
        DefenseFacts("chain", {}),
    ],
    ids=lambda facts: facts.name,
)
def test_settings_that_nobody_can_use_stop_no_attack(
    facts: DefenseFacts, intercept: Callable[..., Capture]
) -> None:
    """A recording may state them in part, or wrongly: the attack goes on and says "no"."""
    seen = replace(intercept(network="small_cnn").seen, defense=(facts,))
    assert adapt_to(seen).missed == (facts.name,)
    assert how_adaptive(seen) == "no"


def test_a_package_hands_in_its_own_adaptation(
    intercept: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = DefenseAdaptation(name="wizardry", directional=False)

    class Wizardry:
        def adaptation(self, count: int) -> DefenseAdaptation | None:
            return own if count == 1 else None

    monkeypatch.setattr(
        "fedaudit.attacks.adaptive.probing.installed_defense", lambda facts: Wizardry()
    )
    seen = replace(
        intercept(network="small_cnn").seen, defense=(DefenseFacts("wizardry", {}),), labels=None
    )
    assert adapt_to(seen).special == (own,)
    assert gather(seen).labels is None  # the direction is gone, and the label with it
    assert how_adaptive(seen) == "no"
    assert how_adaptive(seen, handled=True) == "known"
    assert adapt_to(replace(seen, batch_size=2)).missed == ("wizardry",)

"""A head, or more, that stays on the device: the images are found all the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.evidence.layer_spans import span_distance
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.evidence.unshared_layers import guess_local_layers, learn_local_layers
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.presets.map_inversion import MapInversion
from fedaudit.attacks.search.map_matching import span_goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.core.capture import Capture
from fedaudit.core.errors import UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import PSNR, SSIM

Intercept = Callable[..., Capture]

PROJECTOR: dict[str, Any] = {"defense": "private_projector"}
HEAD = PROJECTOR | {"settings": {"private": ("head.",)}}


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ssim(found: Tensor, captured: Capture) -> float:
    """Of the worst image, each found one against the original that it is most like."""
    assert captured.secret is not None
    rows = [
        max(float(SSIM()(one[None], own[None])) for one in found) for own in captured.secret.images
    ]
    return min(rows)


# --- what the inputs of a layer span ------------------------------------------------------------


@pytest.mark.parametrize("network", ["face", "face_pooled"])
@pytest.mark.parametrize("batch", [1, 4])
def test_true_patches_lie_in_the_span_and_others_do_not(
    network: str, batch: int, intercept: Intercept, faces: FaceSet
) -> None:
    """Compared with the patches that a plain forward pass of the true images has."""
    captured = intercept(batch=batch, network=network, **(PROJECTOR if network == "face" else HEAD))
    assert captured.secret is not None
    evidence = gather(captured.seen)
    assert evidence.labels is None
    assert evidence.first_fc is None
    assert evidence.spans_decide()
    others = faces.images[[30 * k + 5 for k in range(batch)]]
    for span in evidence.spans:
        if not span.whole or span.positions * batch == len(evidence.target[span.name]):
            continue  # its least direction is known to three digits only
        with torch.no_grad():
            true = evidence.reader.rows([span.name], captured.secret.images)[span.name]
            wrong = evidence.reader.rows([span.name], others)[span.name]
        assert span.full
        # Independently: the gradient's own rows are mixtures of the true patches.
        rows = evidence.target[span.name].flatten(1).double()
        patches = true[0].double()
        mixed = torch.linalg.lstsq(patches.T, rows.T).solution
        assert float((patches.T @ mixed - rows.T).norm() / rows.norm()) < 1e-4
        assert float(span.distance(true)) < 1e-4
        assert float(span.distance(wrong)) > 0.1
        assert float(span.outside(true[0].double()[: span.positions]).norm()) < 1e-4
        assert float(span.outside(wrong[0].double()[: span.positions]).norm()) > 0.2


def test_the_distance_is_that_of_principal_angles(intercept: Intercept, faces: FaceSet) -> None:
    evidence = gather(intercept(batch=2, **PROJECTOR).seen)
    others = faces.images[[17, 230]]
    (span, *_) = evidence.spans
    patches = evidence.reader.rows([span.name], others)[span.name][0].detach().double()
    dummy = torch.linalg.qr(patches.T).Q
    cosines = torch.linalg.svdvals(dummy.T @ span.basis[0].T)
    assert float(span.distance(patches[None])) == pytest.approx(
        float((1 - cosines.square()).mean()), abs=1e-3
    )


def test_batches_that_are_one_image_twice_do_not_explain_two(
    intercept: Intercept,
) -> None:
    captured = intercept(batch=2, **PROJECTOR)
    assert captured.secret is not None
    evidence = gather(captured.seen)
    images = captured.secret.images
    twice = images[[0, 0]]
    right = float(span_distance(evidence.reader, evidence.spans, images).detach())
    collapsed = float(span_distance(evidence.reader, evidence.spans, twice).detach())
    assert right < 1e-4
    assert collapsed > 0.3


def test_drift_over_local_steps_shows_in_the_spectrum(intercept: Intercept) -> None:
    """Only directions above the drift are believed; with noise over everything, none."""
    training = LocalTraining(lr=0.05, steps=4, batch_size=4)
    captured = intercept(batch=4, method="fedavg", training=training, **PROJECTOR)
    assert captured.secret is not None
    evidence = gather(captured.seen)
    assert evidence.spans
    assert not any(span.full for span in evidence.spans)
    assert span_goal_of(evidence) is None
    drifted = float(span_distance(evidence.reader, evidence.spans, captured.secret.images).detach())
    assert drifted < 0.15
    drowned = {
        name: value
        + value.norm() / value.numel() ** 0.5 * 10 * torch.randn(value.shape, generator=noise())
        for name, value in evidence.target.items()
    }
    assert not find_spans(evidence.reader, drowned, private=evidence.private)


def test_layers_behind_a_private_one_are_not_read(intercept: Intercept) -> None:
    stem = PROJECTOR | {"settings": {"private": ("body.4.",)}}
    evidence = gather(intercept(**stem).seen)
    assert not evidence.spans


# --- one vector an image stands for whatever is private -----------------------------------------


@pytest.mark.parametrize(
    "private", [("head.",), ("embedding.", "head."), ("body.6.", "embedding.", "head.")]
)
def test_the_vector_an_image_gives_what_autograd_gives_through_the_true_part(
    private: tuple[str, ...], intercept: Intercept, gradient_of: Callable[..., dict[str, Tensor]]
) -> None:
    """The free variables set to the true upstream gradients: the match is the client's update."""
    captured = intercept(batch=3, defense="private_projector", settings={"private": private})
    secret = captured.secret
    assert secret is not None
    evidence = gather(captured.seen)
    # No spans: with the vectors alone.
    matching = Matching(
        _without_spans(evidence), use_first_fc=False, angle=False, generator=noise()
    )
    assert matching.loss == "free"
    true = _as_the_client_had_it(captured)
    mapped = matching.public(secret.images).detach().requires_grad_()
    shape = _map_shape(evidence, secret.images, private)
    scores = _rest(true, mapped.view(shape), private)
    loss = true.criterion(scores, secret.labels)  # type: ignore[operator]
    (upstream,) = torch.autograd.grad(loss, mapped)
    found, _ = matching.gradients(secret.images, range(3), list(upstream))
    expected = gradient_of(true, secret.images, secret.labels)
    for name, value in zip(matching.names, found, strict=True):
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    assert not any(name.startswith(private) for name in matching.names)


def _without_spans(evidence: Evidence) -> Evidence:
    bare = replace(evidence)
    bare.__dict__["spans"] = ()
    return bare


def _as_the_client_had_it(captured: Capture) -> torch.nn.Module:
    """The network with local layers: any will do, as the identity holds for every one."""
    return build(captured.seen.model, captured.seen.before, seed=123)


def _map_shape(evidence: Evidence, images: Tensor, private: tuple[str, ...]) -> torch.Size:
    if "body.6." not in private:
        return torch.Size((len(images), -1))
    with torch.no_grad():
        model: Any = evidence.model
        return torch.Size(model.body[:6](images).shape)


def _rest(model: Any, mapped: Tensor, private: tuple[str, ...]) -> Tensor:
    features = model.body[6](mapped).flatten(1) if "body.6." in private else mapped
    scores: Tensor = model.head(model.embedding(features))
    return scores


# --- attacks ------------------------------------------------------------------------------------


@pytest.mark.slow  # the faces without their head, exact, are below and quicker
def test_solving_for_the_projector_finds_what_guessing_it_does_not(intercept: Intercept) -> None:
    """Embedding and head stay on the device, two images."""
    captured = intercept(batch=2, **PROJECTOR)
    found = {
        unknown: inverting_gradients(steps=steps, unknown=unknown)(  # type: ignore[arg-type]
            captured.seen, generator=noise()
        )
        for unknown, steps in (("joint", 300), ("guessed", 100))
    }
    assert ssim(found["joint"].images, captured) > 0.85
    assert ssim(found["guessed"].images, captured) < 0.5
    assert (found["joint"].labels == -1).all()
    assert (found["guessed"].labels == -1).all()
    assert found["joint"].adaptive == "known"
    assert found["guessed"].adaptive == "no"


@pytest.mark.slow  # a long search
def test_a_face_is_exact_without_its_head(intercept: Intercept) -> None:
    """Behind average pooling, with nothing known of the head: more than 40 dB."""
    captured = intercept(network="face_pooled", **HEAD)
    assert captured.secret is not None
    attack = MapInversion(descent_steps=200, solve_steps=4)
    found = attack(captured.seen, generator=noise())
    assert float(PSNR()(captured.secret.images, found.images).min()) > 40


def test_what_has_nothing_public_before_it_is_guessed_and_says_so(intercept: Intercept) -> None:
    """The stem and the head are private: what lies between them is of no use without the stem."""
    stem = PROJECTOR | {"settings": {"private": ("body.1.", "head.")}}
    seen = intercept(network="small_cnn", **stem).seen
    assert not gather(seen).solvable
    found = inverting_gradients(steps=10, polish=0)(seen, generator=noise())
    assert found.adaptive == "no"
    assert (found.labels == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("unknown", ["guessed", pytest.param("learned", marks=pytest.mark.slow)])
def test_surrogate_heads_are_deterministic_and_differ_between_restarts(
    unknown: str, intercept: Intercept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.attacks.evidence.unshared_layers.STEPS", 10)
    seen = intercept(network="small_cnn", batch=2, **HEAD).seen
    attack = gan_inversion(
        candidates=4,
        latent_steps=4,
        stage_steps=4,
        pixel_steps=4,
        restarts=2,
        unknown=unknown,  # type: ignore[arg-type]
    )
    one, two, other = (attack(seen, generator=noise(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, other.images)
    drawn = guess_local_layers(seen.model, gather(seen).private, 2, 0)
    assert set(drawn) == {"head.weight", "head.bias"}
    assert not torch.equal(drawn["head.weight"][0], drawn["head.weight"][1])


@pytest.mark.slow
def test_a_learned_head_tells_made_up_people_apart(intercept: Intercept) -> None:
    seen = intercept(**HEAD).seen
    evidence = gather(seen)
    start = guess_local_layers(seen.model, evidence.private, 1, 0)
    before = {n: p.detach().clone() for n, p in evidence.model.named_parameters()}
    learned = learn_local_layers(
        evidence.model, start, evidence.shape, source="face_gan", grayscale=True, seed=0
    )
    assert not torch.equal(learned["head.weight"], start["head.weight"])
    assert all(torch.equal(p, before[n]) for n, p in evidence.model.named_parameters())


def test_learning_needs_faces_and_names_are_checked() -> None:
    assert Knowledge.AUXILIARY in inverting_gradients(unknown="learned").needs
    assert Knowledge.AUXILIARY not in inverting_gradients().needs
    with pytest.raises(UnknownNameError, match="joint"):
        inverting_gradients(unknown="jiont")  # type: ignore[arg-type]

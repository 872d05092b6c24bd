"""OASIS: the copies, that they train together, and what a malicious server reads then."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.malicious.imprint import Imprint
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.core.threat_models import threat_model
from fedaudit.defenses.oasis import OASIS
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.scoring.score import score

Intercept = Callable[..., Capture]
EVERYTHING = OASIS(rotations=(90, 30), shears=(0.5,), flips=("horizontal", "vertical"))


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_copies_stand_beside_their_photo(faces: Any) -> None:
    images, labels = faces.images[[0, 50]], torch.tensor([3, 1])
    (transform,) = EVERYTHING.replay(12).images
    made, theirs = transform(images, labels, noise())
    assert theirs.tolist() == [3] * 6 + [1] * 6
    made = made.view(2, 6, *images.shape[1:])
    assert torch.equal(made[:, 0], images)
    assert torch.equal(made[:, 1], torch.rot90(images, 1, (2, 3)))
    assert torch.equal(made[:, 4], images.flip(3))
    assert torch.equal(made[:, 5], images.flip(2))
    soft = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    assert torch.equal(transform(images, soft, noise())[1], soft.repeat_interleave(6, 0))
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(transform(leaf, labels, noise())[0].sum(), leaf)
    assert (slope > 1).all()  # every pixel is in most copies


def test_major_rotation_keeps_each_images_brightness(faces: Any) -> None:
    images = faces.images[:3]
    made, _ = OASIS().replay(3).images[0](images, torch.arange(3), noise())
    means = made.view(3, 4, -1).mean(2)
    torch.testing.assert_close(means, means[:, :1].expand(3, 4))


def test_a_photo_and_its_copies_train_in_one_step(
    federate: Callable[..., Simulation], gradient_of: Callable[..., dict[str, Tensor]]
) -> None:
    """By hand: two SGD steps on one photo each, with its copies, where a step takes one photo."""
    simulation = federate(network="small_cnn", defense="oasis", method="fedavg")
    photos = simulation.split.photos[0][:2]
    training = LocalTraining(lr=0.1, steps=2, batch_size=1)
    state = simulation.fresh()
    returned = simulation.step(state, 0, photos, training, noise())
    sent = next(s for s in returned.shared if isinstance(s, Update))
    assert sent.examples == 8
    assert simulation.local(training) == replace(training, batch_size=4)
    own = [simulation.label_of(0, i) for i in photos]
    assert returned.labels is not None
    assert returned.labels.tolist() == [label for label in own for _ in range(4)]
    either = []
    for order in ((0, 1), (1, 0)):
        model = build(simulation.spec(0), state.server)
        for k in order:
            image = simulation.faces.images[[photos[k]]]
            made = torch.cat([torch.rot90(image, n, (2, 3)) for n in range(4)])
            grads = gradient_of(model, made, torch.full((4,), own[k]))
            with torch.no_grad():
                for name, value in model.named_parameters():
                    value.sub_(grads[name], alpha=0.1)
        moved = {n: p.detach() - state.server[n] for n, p in model.named_parameters()}
        either.append(
            all(torch.allclose(sent.tensors[n], m, rtol=1e-3, atol=1e-6) for n, m in moved.items())
        )
    assert sum(either) == 1


def read_by_imprint(intercept: Intercept, defense: str, settings: dict[str, Any]) -> Tensor:
    """PSNR of the best of all that imprint returns for each of 16 photos; up to 120 dB."""
    attack = Imprint()
    capture = intercept(batch=16, threat="G", malicious=attack, defense=defense, settings=settings)
    assert capture.secret is not None
    images = attack(capture.seen, generator=noise()).images
    error = (capture.secret.images[:, None] - images[None]).square().mean((2, 3, 4)).min(1).values
    return -10 * error.clamp_min(1e-12).log10()


@pytest.mark.slow
def test_imprint_reads_sums_only(intercept: Intercept) -> None:
    """The paper's claim, on our scale: bins that hold one photo alone hold four copies of it."""
    bare = read_by_imprint(intercept, "none", {})
    guarded = read_by_imprint(intercept, "oasis", {})
    assert int((bare > 40).sum()) >= 8
    assert int((guarded > 40).sum()) == 0
    assert float(guarded.max()) < 30


def test_more_reconstructions_than_photos_are_paired_by_label(
    federate: Callable[..., Simulation],
) -> None:
    """Four images come back for each photo; labels say whose they are, squared error which.

    Unless the very photo came back: no wrong label hides that.
    """
    simulation = federate(network="small_cnn", defense="oasis")
    capture = simulate(
        simulation,
        simulation.fresh(),
        target=0,
        batch_size=2,
        training=LocalTraining(batch_size=2),
        threat=threat_model("D", ("labels",)),
    )
    seen, secret = capture.seen, capture.secret
    assert secret is not None
    assert seen.batch_size == 8
    assert seen.labels is not None
    assert secret.behind is not None
    assert torch.equal(seen.labels, secret.labels.repeat_interleave(4))
    assert torch.equal(secret.behind, seen.labels)
    assert secret.images.shape[0] == 2

    (transform,) = OASIS().replay(8).images
    images, labels = transform(secret.images, secret.labels, noise())
    shuffled = torch.randperm(8, generator=noise())
    scores, right, ordered = score(
        secret, Reconstruction(images[shuffled], labels[shuffled]), gallery=None, embed=None
    )
    assert torch.equal(ordered, secret.images)
    assert len(scores) == 2
    assert right == 1.0
    # What is like it under the other label is not taken for it; the exact photo is.
    faint = 0.5 + 0.5 * (images - 0.5)
    swapped = Reconstruction(faint[shuffled], labels.flip(0)[shuffled])
    _, right, ordered = score(secret, swapped, gallery=None, embed=None)
    assert right == 1.0
    assert any(torch.equal(ordered[0], copy) for copy in faint[4:])
    assert any(torch.equal(ordered[1], copy) for copy in faint[:4])
    exact = Reconstruction(images[shuffled], labels.flip(0)[shuffled])
    _, right, ordered = score(secret, exact, gallery=None, embed=None)
    assert right == 1.0
    assert torch.equal(ordered, secret.images)


def test_many_guesses_are_not_many_hits(federate: Callable[..., Simulation]) -> None:
    """Each of four guesses for a photo must be right: one that is does not make all right."""
    simulation = federate(network="small_cnn", defense="oasis")
    capture = simulate(
        simulation,
        simulation.fresh(),
        target=0,
        batch_size=1,
        training=LocalTraining(),
        threat=threat_model("D"),
    )
    assert capture.secret is not None
    own = int(capture.secret.labels[0])
    guesses = torch.tensor([own, own + 1, own + 2, own + 3])
    found = Reconstruction(torch.rand(4, 3, 32, 32), guesses)
    assert score(capture.secret, found, gallery=None, embed=None)[1] == 0.25
    alone = Reconstruction(torch.rand(1, 3, 32, 32), guesses[:1])  # by an attack that undoes copies
    assert score(capture.secret, alone, gallery=None, embed=None)[1] == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"rotations": ()},
        {"rotations": (0,)},
        {"rotations": (400,)},
        {"shears": (2,)},
        {"flips": ("diagonal",)},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        OASIS(**settings)

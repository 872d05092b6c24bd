from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.defense_replay import replay_of
from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.attacks.evidence.feature_maps.known_maps import known_maps
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.learned import decoder, feature_decoder
from fedaudit.attacks.learned.feature_decoder import FeatureDecoder
from fedaudit.attacks.learned.learned_inversion import LearnedInversion, principal
from fedaudit.attacks.learned.sketch import Sketch, image_gradients, leading
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import DefenseFacts, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.data.orl import orl
from fedaudit.models.build_network import build, parameters_of
from fedaudit.scoring.image_metrics import SSIM

Intercept = Callable[..., Capture]
SHAPE = (3, 32, 32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def held_out(count: int = 8) -> Tensor:
    """Faces that no training draws."""
    return Auxiliary().faces(count, SHAPE, seeded(12345), grayscale=True)


def update_of(image: Tensor, label: int, defense: tuple[DefenseFacts, ...] = ()) -> Observation:
    """A defended one-image update, by plain autograd and the defense written out here."""
    spec = ModelSpec("face", {"classes": 4, "image_size": 32})
    model = build(spec, seed=5)
    named = dict(model.named_parameters())
    loss = model.criterion(model(image[None]), torch.tensor([label]))  # type: ignore[operator]
    gradient = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    if defense and defense[0].name == "sign":
        gradient = {name: value.sign() for name, value in gradient.items()}
    if defense and defense[0].name == "top_k":
        flat = torch.cat([value.flatten() for value in gradient.values()]).abs()
        kept = round((1 - defense[0].settings["pruned"]) * len(flat))
        least = flat.sort(descending=True).values[kept - 1]
        gradient = {name: value * (value.abs() >= least) for name, value in gradient.items()}
    return Observation(
        model=spec,
        before=parameters_of(model),
        shared=(Update("gradient", gradient, 1),),
        image_shape=SHAPE,
        batch_size=1,
        num_classes=4,
        defense=defense,
    )


# --- auxiliary faces ------------------------------------------------------------------------------


def test_auxiliary_faces_vary_and_repeat_under_a_seed() -> None:
    faces = Auxiliary().faces(40, SHAPE, seeded(), grayscale=False)
    assert faces.shape == (40, *SHAPE)
    assert float(faces.min()) >= 0
    assert float(faces.max()) <= 1
    assert torch.equal(faces, Auxiliary().faces(40, SHAPE, seeded(), grayscale=False))
    distances = torch.cdist(faces.flatten(1), faces.flatten(1))
    assert float((distances + 1e3 * torch.eye(40)).min()) > 0.5
    gray = (faces - faces.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert 5 < int(gray.sum()) < 35
    only = Auxiliary().faces(5, (1, 16, 24), seeded(), grayscale=True)
    assert only.shape == (5, 1, 16, 24)


def test_target_faces_are_not_auxiliary(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **_: object) -> Path:
        raise AssertionError(f"read {name}")

    Auxiliary().faces(1, SHAPE, seeded(), grayscale=True)  # the generator is loaded once a process
    monkeypatch.setattr("fedaudit.files.asset_store.path", refuse)
    with pytest.raises(AssertionError, match="orl"):
        orl(size=32)
    Auxiliary().faces(8, SHAPE, seeded(), grayscale=True)


# --- gradients and their sketch -------------------------------------------------------------------


def test_image_gradients_are_autograds(
    gradient_of: Callable[..., dict[str, Tensor]],
) -> None:
    model = build(ModelSpec("face", {"classes": 4, "image_size": 32}), seed=5)
    images, labels = held_out(3), torch.tensor([0, 3, 1])
    names = ("body.1.weight", "embedding.weight")
    found = image_gradients(model, names, images, labels)
    assert tuple(found) == names
    for k in range(3):
        alone = gradient_of(model, images[k : k + 1], labels[k : k + 1])
        for name in names:
            torch.testing.assert_close(found[name][k], alone[name], rtol=1e-3, atol=1e-6)


def test_batch_norm_is_refused() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten()
    )
    with pytest.raises(AttackError, match="batch norm"):
        image_gradients(model, ("0.weight",), held_out(2), torch.zeros(2, dtype=torch.int64))


def test_sketch_keeps_angles_and_leaves_short_parts_alone() -> None:
    shapes = {"long": torch.Size([80, 100]), "short": torch.Size([50])}
    batch = {name: torch.randn(20, *shape, generator=seeded(1)) for name, shape in shapes.items()}
    batch["long"][1] = batch["long"][0] + 0.1 * batch["long"][1]
    sketch = Sketch(shapes, 2050, seed=0)(batch)
    assert sketch.shape == (20, 2050)
    long, true = sketch[:, :2000], batch["long"].flatten(1)
    cosines = torch.corrcoef(long)
    assert float((cosines - torch.corrcoef(true)).abs().max()) < 0.12
    assert float(cosines[0, 1]) > 0.98
    expected = batch["short"] / batch["short"].square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(sketch[:, 2000:], expected, rtol=1e-4, atol=1e-4)


def test_leading_is_the_first_right_singular_vector() -> None:
    matrices = torch.randn(3, 20, 30, generator=seeded(2)) * 0.1
    matrices += torch.randn(3, 20, 1, generator=seeded(3)) * torch.rand(
        3, 1, 30, generator=seeded(4)
    )
    found = leading(matrices)
    for matrix, vector in zip(matrices, found, strict=True):
        true = torch.linalg.svd(matrix).Vh[0]
        assert float((vector @ true).abs() / vector.norm()) > 0.9999
    assert bool((found.sum(1) > 0).all())


def test_principal_directions_are_the_svds() -> None:
    vectors = torch.randn(50, 200, generator=seeded(5)) * torch.linspace(3, 0.1, 200)
    found = principal(vectors, 5)
    _, sizes, rows = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    torch.testing.assert_close(found["spread"], sizes[:5] / 50**0.5, rtol=1e-3, atol=1e-4)
    agreement = (found["directions"] * rows[:5]).sum(1).abs()
    torch.testing.assert_close(agreement, torch.ones(5), rtol=1e-3, atol=1e-3)


# --- defenses, replayed ---------------------------------------------------------------------------


def test_replayed_dpsgd_is_the_clients(intercept: Intercept) -> None:
    settings = {"noise_multiplier": 0.0, "max_grad_norm": 0.3}
    capture = intercept(batch=2, defense="dpsgd", settings=settings)
    assert capture.secret is not None
    assert capture.seen.update is not None
    model = build(capture.seen.model, capture.seen.before)
    names = tuple(capture.seen.update.tensors)
    batch = image_gradients(model, names, capture.secret.images, capture.secret.labels)
    (clip,) = replay_of((DefenseFacts("dpsgd", settings),), 2).each
    batch = clip(batch, seeded())
    for name, sent in capture.seen.update.tensors.items():
        torch.testing.assert_close(batch[name].mean(0), sent, rtol=2e-3, atol=1e-6)


def test_replayed_dpsgd_has_the_clients_noise() -> None:
    facts = DefenseFacts("dpsgd", {"noise_multiplier": 2.0, "max_grad_norm": 0.5})
    (noise,) = replay_of((facts,), 4).mean
    noisy = noise({"w": torch.zeros(3, 100, 100)}, seeded())["w"]
    assert float(noisy.std()) == pytest.approx(2.0 * 0.5 / 4, rel=0.02)


def test_replayed_signs_pruning_and_relative_noise() -> None:
    batch = {"a": torch.randn(2, 30, 10, generator=seeded(1)), "b": torch.ones(2, 100) * 1e-3}

    def replay(name: str, **settings: object) -> dict[str, Tensor]:
        (transform,) = replay_of((DefenseFacts(name, settings),), 1).mean
        return transform(batch, seeded())

    assert set(replay("sign")["a"].flatten().tolist()) == {-1.0, 1.0}
    pruned = replay("top_k", pruned=0.95)
    assert int((pruned["a"] != 0).sum()) == 2 * 20
    assert not pruned["b"].any()
    assert float(pruned["a"].abs().max()) == float(batch["a"].abs().max())
    noise = replay("gaussian_noise", std=0.5, of="norm")
    off = torch.cat([(noise[n] - batch[n]).flatten(1) for n in batch], 1).norm(dim=1)
    whole = torch.cat([batch[n].flatten(1) for n in batch], 1).norm(dim=1)
    torch.testing.assert_close(off / whole, torch.full((2,), 0.5), rtol=0.2, atol=0)
    clipped = replay("clipping", max_norm=0.1)
    length = torch.cat([clipped[n].flatten(1) for n in batch], 1).norm(dim=1)
    torch.testing.assert_close(length, torch.full((2,), 0.1), rtol=1e-3, atol=0)


def test_a_defense_without_replay_is_refused() -> None:
    with pytest.raises(AttackError, match="'wizardry' cannot be replayed"):
        replay_of((DefenseFacts("wizardry", {}),), 1)


@pytest.mark.parametrize("name", ["sign", "top_k"])
def test_an_untold_defense_shows(name: str) -> None:
    facts = DefenseFacts(name, {"pruned": 0.99} if name == "top_k" else {})
    defended = update_of(held_out(1)[0], 2, (facts,))
    (found,) = estimate(defended)
    assert found.name == name
    if name == "top_k":
        assert found.settings["pruned"] == pytest.approx(0.99, abs=1e-4)
    assert estimate(update_of(held_out(1)[0], 2)) == ()


# --- the attacks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("learned"))


@pytest.mark.parametrize("network", ["face", "face_pooled"])
@pytest.mark.slow  # a long search
def test_decoded_maps_show_the_face(network: str, intercept: Intercept, cache: str) -> None:
    setting = FeatureDecoder(faces=192, epochs=4, width=64, cache=cache)
    drawn, true = [], []
    for target in range(3):
        capture = intercept(network=network, target=target)
        images = setting.draw(gather(capture.seen))
        assert images is not None
        assert capture.secret is not None
        drawn.append(images)
        true.append(capture.secret.images)
    originals, middle = torch.cat(true), held_out(32).mean(0, keepdim=True).expand(3, -1, -1, -1)
    own = SSIM()(originals, torch.cat(drawn))
    assert float((own - SSIM()(originals, middle)).min()) > 0.1
    # And each its own face, not one that suits all.
    swapped = SSIM()(originals, torch.cat(drawn).roll(1, 0))
    assert bool((own > swapped + 0.05).all())


@pytest.mark.parametrize(("network", "batch"), [("face_pooled", 1), ("face", 2)])
@pytest.mark.slow
def test_refined_to_the_face_itself(
    network: str, batch: int, intercept: Intercept, cache: str
) -> None:
    """Golden: what gradient matching alone has never reached behind average pooling."""
    capture = intercept(network=network, batch=batch, target=1)
    attack = FeatureDecoder(faces=192, epochs=4, width=64, refine_steps=100, cache=cache)
    result = attack(capture.seen, generator=seeded())
    assert capture.secret is not None
    originals = capture.secret.images
    distances = torch.cdist(originals.flatten(1), result.images.flatten(1))
    ssim = SSIM()(originals, result.images[distances.argmin(1)])
    assert float(ssim.min()) > 0.9
    assert [value for _, value in result.history][-1] < 0.1 * result.history[0][1]


@pytest.mark.slow  # test_golden has pruned updates, the contract every defense
def test_lti_learns_through_a_defense(cache: str) -> None:
    defense = (DefenseFacts("top_k", {"pruned": 0.99}),)
    attack = LearnedInversion(
        faces=128, epochs=8, width=1024, directions=64, hidden=64, cache=cache
    )
    faces = held_out(6)
    found = [
        attack(update_of(face, k % 4, defense), generator=seeded()).images[0]
        for k, face in enumerate(faces)
    ]
    middle = held_out(40)[6:].mean(0, keepdim=True).expand(6, -1, -1, -1)
    own = SSIM()(faces, torch.stack(found)).mean()
    assert float(own - SSIM()(faces, middle).mean()) > 0.02


def test_what_was_learned_is_kept_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []
    teach = decoder.teach

    def counted(*arguments: object, **settings: object) -> int:
        taught.append(1)
        return teach(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_decoder, "teach", counted)
    seen = update_of(held_out(1)[0], 1)
    evidence = gather(seen)
    setting = FeatureDecoder(faces=4, epochs=1, width=8, cache=str(tmp_path))
    first = setting.draw(evidence)
    assert first is not None
    assert len(taught) == 1
    other = gather(update_of(held_out(2)[1], 3))  # another target and label, the same model
    assert setting.draw(other) is not None
    again = setting.draw(evidence)
    assert again is not None
    assert torch.equal(first, again)
    assert len(taught) == 1
    replace(setting, epochs=2).draw(evidence)
    assert len(taught) == 2
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"damaged")
    repaired = setting.draw(evidence)
    assert repaired is not None
    assert torch.equal(first, repaired)
    assert len(taught) == 3
    replace(setting, cache="off").draw(evidence)
    assert len(taught) == 4


def test_nothing_known_is_said(intercept: Intercept) -> None:
    evidence = gather(intercept(defense="private_projector").seen)
    assert known_maps(evidence) is None
    assert FeatureDecoder().draw(evidence) is None

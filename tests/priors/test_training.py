import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.core.errors import UsageError
from fedaudit.data.face_set import FaceSet
from fedaudit.data.openpeople import openpeople
from fedaudit.models.generator import StagedGenerator, load_generator
from fedaudit.models.prior_file import read_prior
from fedaudit.models.stacked_generator import Architecture
from fedaudit.priors import training_session
from fedaudit.priors.autoencoder import Settings, Trainer, difference
from fedaudit.priors.face_grids import grid
from fedaudit.priors.kernel_distance import kernel_distance
from fedaudit.priors.prior_check import express
from fedaudit.priors.training_photos import Photos
from fedaudit.priors.training_session import checkpoint_path, samples_folder, train
from fedaudit.priors.variation import vary

QUICK = Settings(size=32, batch=8)


@pytest.fixture(scope="module")
def photos(faces: FaceSet) -> Photos:
    return Photos("faces", faces.images[:90], faces.images[360:370])


def weights(path: Path) -> dict[str, Tensor]:
    return dict(read_prior(path).generator.state_dict())


@pytest.mark.parametrize("architecture", ["dcgan", "style"])
def test_each_architecture_learns(photos: Photos, architecture: Architecture) -> None:
    trainer = Trainer(photos, replace(QUICK, architecture=architecture))
    untrained = trainer.judge()
    errors = [trainer.advance() for _ in range(10)]
    assert sum(errors[-3:]) < 0.9 * sum(errors[:3])
    assert trainer.judge() > untrained + 0.5
    assert trainer.manifest(0.0).architecture == trainer.kept.architecture == architecture


def test_a_start_brings_its_architecture(photos: Photos, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    train(photos, replace(QUICK, architecture="style"), first, steps=1)
    again = replace(QUICK, architecture="dcgan", start=str(first))
    second = tmp_path / "second.safetensors"
    assert train(photos, again, second, steps=1).architecture == "style"
    z = torch.zeros(1, QUICK.latent_dim)
    assert torch.equal(load_generator(str(second))(z), load_generator(str(first))(z))  # warming up


@pytest.mark.slow
def test_some_steps_lower_the_error_and_leave_no_trace(photos: Photos) -> None:
    before = torch.get_rng_state()
    trainer = Trainer(photos, QUICK)
    untrained = trainer.judge()
    errors = [trainer.advance() for _ in range(40)]
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(errors[-10:]) < 0.75 * sum(errors[:10])
    mean_face = photos.train.mean(0, keepdim=True).expand_as(photos.held_out)
    of_mean = float(-10 * (mean_face - photos.held_out).square().flatten(1).mean(1).log10().mean())
    assert trainer.judge() > max(untrained + 3, of_mean)  # more than the one face that fits all
    samples = trainer.sample(20)
    plain = trainer.average(trainer.average.latents.draw(20, torch.Generator().manual_seed(0)))
    assert samples.std(0).mean() > 1.1 * plain.std(0).mean()  # latents as encoded photos have them
    assert samples.shape == (20, 3, 32, 32)
    assert samples.std(0).mean() > 0.02  # not one face again and again


def test_photos_vary_and_stay_what_they_show() -> None:
    faces = openpeople(size=32).images[:8]
    varied, again = (vary(faces, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(varied, again)
    assert varied.shape == faces.shape
    assert 0 <= varied.min() <= varied.max() <= 1
    away = (varied - faces).flatten(1).square().mean(1)
    others = (faces.roll(1, 0) - faces).flatten(1).square().mean(1)
    assert away.min() > 1e-4
    assert away.mean() < 0.5 * others.mean()


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_an_interrupted_training_reaches_the_same_weights(
    photos: Photos, tmp_path: Path, *, augment: bool
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    settings = replace(QUICK, augment=augment)
    train(photos, settings, whole, steps=12)
    train(photos, settings, parts, steps=5)
    half = weights(parts)
    done = train(photos, settings, parts, steps=12, resume=True)
    assert done.steps == 12
    expected, found = weights(whole), weights(parts)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(half[name], found[name]) for name in half)


@pytest.mark.slow
def test_a_start_too_goes_on_and_its_encoder_comes_first(photos: Photos, tmp_path: Path) -> None:
    settings = replace(QUICK, start="face_gan", warmup=3, batch=4)
    stock = load_generator("face_gan")
    assert isinstance(stock, StagedGenerator)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(photos, settings, parts, steps=2)
    z = stock.latents.draw(2, torch.Generator().manual_seed(0))
    assert torch.equal(load_generator(str(parts))(z), stock(z))  # still the stock generator
    train(photos, settings, parts, steps=5, resume=True)
    train(photos, settings, whole, steps=5)
    expected, found = weights(whole), weights(parts)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torch.equal(load_generator(str(parts))(z), stock(z))
    again = train(photos, replace(settings, start=str(whole)), tmp_path / "on.safetensors", steps=1)
    assert again.start == str(whole)


def test_the_prior_serves_an_attack(photos: Photos, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    manifest = train(photos, QUICK, path, steps=3)
    assert (manifest.photos, manifest.held_out, manifest.steps) == (90, 10, 3)
    assert manifest.psnr is not None
    fitted = FaceGenerator(source=str(path)).load((1, 32, 32), grayscale=True)
    assert fitted.crop == (0.0, 1.0, 0.0, 1.0)
    z = fitted.sample(2, torch.Generator().manual_seed(0))
    assert fitted.stages((1, 2, 3)) == (1, 2, 3)
    for stage in (1, 2, 3):
        inner = fitted.enter(z, 0, stage)
        assert torch.allclose(fitted.images_from(inner, stage), fitted.images(z), atol=1e-6)
    picture = Image.open(io.BytesIO((samples_folder(path) / "step-000003.png").read_bytes()))
    assert picture.size == (2 * (10 * 34 + 2), 2 * (6 * 34 + 2))


def test_an_interrupt_keeps_what_was_learned(photos: Photos, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"

    def interrupt(now: training_session.Progress) -> None:
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(photos, QUICK, path, minutes=10, report=interrupt)
    assert read_prior(path).manifest.steps == 4
    train(photos, QUICK, path, steps=6, resume=True)
    trainer = Trainer(photos, QUICK)
    for _ in range(6):
        trainer.advance()
    expected, found = trainer.kept.state_dict(), weights(path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_clock_ends_it(photos: Photos, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    shares: list[float] = []
    train(photos, QUICK, path, minutes=0.01, report=lambda now: shares.append(now.share))
    assert shares
    assert shares == sorted(shares)
    assert read_prior(path).manifest.steps == len(shares)


def test_what_cannot_be_gone_on_from(photos: Photos, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    with pytest.raises(UsageError, match="no checkpoint"):
        train(photos, QUICK, path, steps=1, resume=True)
    train(photos, QUICK, path, steps=1)
    with pytest.raises(UsageError, match="--resume"):
        train(photos, QUICK, path, steps=1)
    with pytest.raises(UsageError, match=r"batch, seed differ"):
        train(photos, replace(QUICK, seed=1, batch=9), path, steps=2, resume=True)
    other = Photos("faces", photos.train.flip(0), photos.held_out)
    with pytest.raises(UsageError, match="mean differ"):
        train(other, QUICK, path, steps=2, resume=True)
    checkpoint_path(path).write_bytes(b"\xff" * 500)
    with pytest.raises(UsageError, match="cannot be gone on from"):
        train(photos, QUICK, path, steps=2, resume=True)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        train(photos, QUICK, tmp_path / "prior.pt", steps=1)
    with pytest.raises(UsageError, match="an end"):
        train(photos, QUICK, tmp_path / "other.safetensors")


@pytest.mark.parametrize("setting", [{"batch": 0}, {"lr": 0.0}, {"kl": -1.0}, {"warmup": -1}])
def test_settings_out_of_range(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Settings(**setting)  # type: ignore[arg-type]


def test_starts_that_cannot_be_trained(photos: Photos) -> None:
    with pytest.raises(UsageError, match="choose 32 or 64 or 112"):
        Trainer(photos, Settings(size=48))
    with pytest.raises(UsageError, match="neither 'face_gan'"):
        Trainer(photos, replace(QUICK, start="stylegan"))


def test_the_difference_sees_where_detail_is() -> None:
    flat = torch.full((1, 3, 16, 16), 0.5)
    checks = flat + 0.2 * (torch.arange(16)[:, None] + torch.arange(16)[None] % 2).remainder(2)
    checks = checks - 0.1
    shifted = flat + 0.1
    assert difference(flat, flat) == 0
    # Both are 0.1 away at every pixel; the fine pattern vanishes on coarser scales.
    assert difference(flat, shifted).item() == pytest.approx(0.1, rel=1e-4)
    assert difference(flat, checks).item() == pytest.approx(0.1 / 3, rel=1e-4)


@pytest.mark.slow  # a long search
def test_a_prior_expresses_its_own_faces() -> None:
    fitted = FaceGenerator().load((3, 32, 32), grayscale=False)
    with torch.no_grad():
        own = fitted.images(fitted.sample(3, torch.Generator().manual_seed(9)))
    noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    of_own, of_noise = (
        express(fitted, x, generator=torch.Generator().manual_seed(1), candidates=32, steps=60)
        for x in (own, noise)
    )
    assert of_own.psnr.mean() > 22
    assert of_noise.psnr.max() < 14
    error = (of_own.images - own).square().flatten(1).mean(1)
    assert torch.allclose(of_own.psnr, -10 * error.log10(), atol=1e-3)


def test_grids_show_every_image_in_its_place() -> None:
    rows = [torch.full((2, 3, 64, 64), 0.2), torch.zeros(3, 1, 64, 64)]
    picture = Image.open(io.BytesIO(grid(rows)))
    assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
    assert picture.getpixel((34, 34)) == (51, 51, 51)
    assert picture.getpixel((34, 100)) == (0, 0, 0)
    assert picture.getpixel((166, 34)) == (255, 255, 255)  # the first row is shorter


@pytest.mark.slow
def test_a_prior_of_112_pixels_is_trained_and_read(tmp_path: Path) -> None:
    photos = torch.rand(8, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    output = tmp_path / "large.safetensors"
    train(Photos("noise", photos, photos[:2]), Settings(size=112, batch=2), output, steps=1)
    drawn = read_prior(output).generator(torch.zeros(1, 100))
    assert drawn.shape == (1, 3, 128, 128)  # attacks bring it to the size that they need


def test_photos_of_one_source_are_near_and_others_are_not(faces: FaceSet) -> None:
    some, others = faces.images[:120:2], faces.images[1:120:2]
    blurred = torch.nn.functional.avg_pool2d(others, 5, 1, 2)
    near, far = kernel_distance(some, others), kernel_distance(blurred, some)
    assert abs(near) < 0.2 * far
    colored = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert far < kernel_distance(colored, some) < 1e4  # some features no photo has


def test_random_latents_become_those_of_photos(photos: Photos) -> None:
    trainer = Trainer(photos, QUICK)
    trainer.advance()
    kept, count = trainer.kept, 400
    z = torch.randn(20_000, kept.latent_dim, generator=torch.Generator().manual_seed(0))
    assert kept.mapping is not None
    drawn = kept.mapping(z)
    seen = photos.draw(count, torch.Generator().manual_seed(QUICK.seed))
    with torch.no_grad():
        mean, logvar = trainer.encoder(seen)
    assert torch.allclose(drawn.mean(0), mean.mean(0), atol=0.05)
    expected = torch.cov(mean.T) + logvar.exp().mean(0).diag()
    assert torch.allclose(torch.cov(drawn.T), expected, atol=0.08)
    inner = trainer.average.forward_from(0, drawn[:2])
    assert torch.allclose(kept(z[:2]), inner, atol=1e-6)
    assert torch.allclose(kept.forward_from(2, kept.features(z[:2], 2)), inner, atol=1e-6)

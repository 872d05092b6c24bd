"""One face, layer by layer, where the equations fix it; an honest count where they do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.closed_form.plain_stack import Affine, stack_of
from fedaudit.attacks.closed_form.r_gap import RGap, Solution
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build

Intercept = Callable[..., Capture]
GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def run(capture: Capture, **settings: Any) -> Reconstruction:
    return RGap(**settings)(capture.seen, generator=torch.Generator().manual_seed(0))


def solutions(capture: Capture) -> tuple[Solution, ...]:
    evidence = gather(capture.seen)
    return RGap().invert(
        evidence.model, evidence.target, evidence.shape, torch.Generator().manual_seed(0)
    )[1]


def psnr(capture: Capture, result: Reconstruction) -> float:
    assert capture.secret is not None
    error = (capture.secret.images - result.images).square().mean()
    return float(-10 * error.clamp_min(1e-20).log10())


@pytest.fixture
def plain(federate: Callable[..., Simulation]) -> Callable[..., Simulation]:
    def make(network: str = "plain_cnn", **arguments: Any) -> Simulation:
        return federate(network=network, arguments=arguments)

    return make


@pytest.mark.parametrize("target", [0, 1])
def test_a_rank_sufficient_network_gives_the_face_exactly(
    target: int, intercept: Intercept, plain: Callable[..., Simulation]
) -> None:
    capture = intercept(simulation=plain(), target=target)
    result = run(capture)
    assert psnr(capture, result) > 80
    assert result.objective < 1e-4
    assert capture.secret is not None
    assert torch.equal(result.labels, capture.secret.labels)
    assert all(s.deficiency < 1 for s in solutions(capture))


def test_sigmoids_can_be_inverted_too(
    intercept: Intercept, plain: Callable[..., Simulation]
) -> None:
    capture = intercept(simulation=plain("small_cnn"))
    assert psnr(capture, run(capture, probes=0)) > 50


def test_the_rank_deficiency_is_what_the_equations_lack(
    intercept: Intercept, plain: Callable[..., Simulation]
) -> None:
    """Two channels out of three leave a third of the pixels free, less the gradient's equations."""
    capture = intercept(simulation=plain(widths=(2, 6)))
    entry = solutions(capture)[-1]
    assert entry.layer == "body.1"
    assert entry.unknowns == 3072
    assert entry.equations == 2 * 1024 + 2 * 27
    least = entry.unknowns - entry.equations
    assert 0.85 * least < entry.deficiency < 1.15 * least
    assert psnr(capture, run(capture)) < 30


def test_constraints_and_their_transpose_agree_with_autograd() -> None:
    noise = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1)).double()
    layer = stack_of(model, (2, 7, 7))[0]
    assert isinstance(layer, Affine)
    x = torch.randn(1, 2, 7, 7, generator=noise, dtype=torch.float64)
    upstream = torch.randn(1, 3, 4, 4, generator=noise, dtype=torch.float64)
    one, two = layer.constraints(x, upstream)
    convolution = model[0]
    assert isinstance(convolution, nn.Conv2d)
    y = convolution(x)
    (gradient,) = torch.autograd.grad((y * upstream).sum(), [convolution.weight])
    assert convolution.bias is not None
    torch.testing.assert_close(one, (y - convolution.bias[None, :, None, None]).detach())
    torch.testing.assert_close(two, gradient)
    u, v = torch.randn_like(one), torch.randn_like(two)
    left = (one * u).sum() + (two * v).sum()
    torch.testing.assert_close(left, (x * layer.gathered(u, v, upstream)).sum())


def test_a_plain_sequential_with_tanh(gradient_of: GradientOf) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 9), nn.LeakyReLU(0.3),
        nn.Linear(9, 5),
    )  # fmt: skip
    image = torch.rand(1, 1, 8, 8)
    target = gradient_of(model, image, torch.tensor([2]))
    found, _ = RGap().invert(model, target, (1, 8, 8), torch.Generator().manual_seed(0))
    assert float((found - image).abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("network", "arguments", "why"),
    [
        ("mlp", {}, "average pooling"),
        ("face", {"head": "linear"}, "GroupNorm, which cannot be undone"),
        ("plain_cnn", {"head": "cosface"}, "CosFaceHead"),
    ],
)
def test_refuses_other_networks(
    network: str,
    arguments: dict[str, Any],
    why: str,
    intercept: Intercept,
    federate: Callable[..., Simulation],
) -> None:
    capture = intercept(simulation=federate(network=network, arguments=arguments))
    with pytest.raises(AttackError, match=why):
        run(capture)


def test_refuses_relu_and_headless_stacks() -> None:
    relu = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    with pytest.raises(AttackError, match=r"ReLU.*Use the network plain_cnn"):
        stack_of(relu, (3, 4, 4))
    with pytest.raises(AttackError, match="fully connected head"):
        RGap().invert(nn.Sequential(nn.Conv2d(3, 3, 1)), {}, (3, 4, 4), torch.Generator())


def test_refuses_batches_and_withheld_parts(
    intercept: Intercept, plain: Callable[..., Simulation]
) -> None:
    with pytest.raises(AttackError, match="mean of 2"):
        run(intercept(batch=2, simulation=plain()))
    capture = intercept(simulation=plain())
    assert capture.seen.update is not None
    sent = {k: v for k, v in capture.seen.update.tensors.items() if k != "body.1.weight"}
    with pytest.raises(AttackError, match=r"body\.1\.weight was not shared"):
        run(replace(capture, seen=replace(capture.seen, shared=(Update("gradient", sent),))))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"probes": -1}])
def test_refuses_bad_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        RGap(**settings)


def test_few_channels_are_refused_by_the_network() -> None:
    with pytest.raises(Exception, match="at least 1"):
        build(ModelSpec("plain_cnn", {"classes": 3, "widths": ()}))

"""Known maps give the faces back exactly, on trained networks too."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.presets.map_inversion import MapInversion
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.contrast import settle_contrast
from fedaudit.attacks.search.map_matching import MapMatching, goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.movers.gauss_newton import _jacobian, solve
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.data.orl import orl
from fedaudit.federation.simulation import Simulation
from fedaudit.models.facenet import FaceNet, require_face_net
from fedaudit.scoring.image_metrics import SSIM

Intercept = Callable[..., Capture]


def evidence_of(intercept: Intercept, batch: int = 1) -> tuple[Evidence, Tensor]:
    capture = intercept(batch=batch, threat="D")
    assert capture.secret is not None
    return gather(capture.seen), capture.secret.images


@pytest.mark.parametrize("batch", [1, 4])
def test_the_goal_is_what_the_true_images_reach(intercept: Intercept, batch: int) -> None:
    evidence, images = evidence_of(intercept, batch)
    goal = goal_of(evidence)
    assert goal is not None
    assert goal.depth is not None
    model = require_face_net(evidence.model, "the test")
    with torch.no_grad():
        reached = goal.reached(model, images)
    nearest = torch.cdist(reached.double(), goal.directions)
    assert float(nearest.min(0).values.max()) < 1e-4
    assert sorted(nearest.argmin(1).tolist()) == list(range(batch))


def test_no_goal_without_an_exact_map(intercept: Intercept) -> None:
    evidence, _ = evidence_of(intercept)
    assert goal_of(replace(evidence, first_fc=None)) is None
    noised = {k: v + v.std() * torch.randn_like(v) for k, v in evidence.target.items()}
    goal = goal_of(replace(evidence, target=noised))
    assert goal is None or goal.depth is None


def test_map_matching_is_zero_at_the_truth_only(intercept: Intercept) -> None:
    evidence, images = evidence_of(intercept)
    goal = goal_of(evidence)
    assert goal is not None
    start = torch.full_like(images, 0.4)
    start[:, :, 8:24] = 0.7
    matching = MapMatching(Matching(evidence), goal, start)
    for dummy, expected in ((images, 0.0), (start, 1.0)):
        found = matching.objective(*matching.gradients(dummy, [0]))
        assert float(found.detach()) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("unknowns", [12, 40, 2100])
def test_the_solver_reaches_a_goal(
    unknowns: int,
) -> None:
    """More numbers than unknowns, fewer, and so many that no Jacobian is formed."""
    torch.manual_seed(0)
    inner = torch.randn(24, unknowns, dtype=torch.float64) / unknowns**0.5
    truth = torch.randn(unknowns, dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return F.normalize(torch.tanh(inner.to(x) @ x) + 2, dim=0)

    told: list[float] = []
    goal = exact(truth)
    found = solve(
        exact, exact, goal, 0.8 * truth, steps=12, damping=1e-3, floor=1e-9, report=told.append
    )
    assert float((exact(found) - goal).norm()) < 1e-7
    assert told == sorted(told, reverse=True)


def test_the_jacobian_is_the_networks() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 9), nn.PReLU(), nn.Linear(9, 5)).requires_grad_(False)
    place = torch.randn(6)
    expected = torch.func.jacrev(network)(place)
    torch.testing.assert_close(_jacobian(network, place), expected)


@pytest.mark.slow  # a long search
def test_contrast_comes_back_from_the_gradient(intercept: Intercept) -> None:
    evidence, images = evidence_of(intercept, batch=2)
    goal = goal_of(evidence)
    assert goal is not None
    exact = require_face_net(evidence.model, "the test")
    with torch.no_grad():
        reached = goal.reached(exact, images).double()
    order = torch.cdist(goal.directions, reached).argmin(1)
    truth = images[order, :1].double()
    exact = FaceNet.double(exact)
    factors = torch.tensor([0.8, 1.25]).view(2, 1, 1, 1)
    flat = 0.5 + factors * (truth - 0.5)
    evidence = replace(evidence, model=exact)
    settled = settle_contrast(evidence, exact, lambda x: x.expand(-1, 3, -1, -1), flat)
    assert float((flat - truth).abs().max()) > 0.03
    assert float((settled - truth).abs().max()) < 0.01
    wrong = flat.flip(3)
    again = settle_contrast(evidence, exact, lambda x: x.expand(-1, 3, -1, -1), wrong)
    assert float(again.min()) >= 0
    assert float(again.max()) <= 1
    assert torch.equal(again[0], wrong[0])  # it fits already


@pytest.mark.slow
def test_a_batch_is_recognizable_without_the_solver(intercept: Intercept) -> None:
    capture = intercept(batch=2, threat="D")
    assert capture.secret is not None
    attack = MapInversion(candidates=16, descent_steps=150, solve_steps=0)
    found = attack(capture.seen, generator=torch.Generator().manual_seed(0)).images
    truth = capture.secret.images
    scores = torch.stack([SSIM()(truth, one.expand(2, -1, -1, -1)) for one in found])
    assert float(scores.max(0).values.min()) > 0.8


def test_a_stage_that_solves_is_about_pixels() -> None:
    with pytest.raises(ValueError, match="pixels"):
        Stage(varies=Latent(), steps=1, lr=1e-3, optimizer="gauss_newton")
    assert isinstance(MapInversion()._search(), MatchingAttack)


class BreakError(Exception):
    pass


@dataclass(frozen=True)
class BreaksOff(Checkpoint):
    """The machine dies once the checkpoint has been written a number of times."""

    after: int = 1
    written: list[int] = field(default_factory=list)

    def save(self, *what: Any) -> None:
        super().save(*what)
        self.written.append(1)
        if len(self.written) == self.after:
            raise BreakError


@pytest.mark.slow
def test_the_solver_goes_on_after_the_images_that_it_has_solved(
    federate: Callable[..., Simulation], intercept: Intercept, tmp_path: Path
) -> None:
    """Sixteen pixels a side, so that a step costs little; to the bit."""
    small = federate(faces=orl(size=16))
    seen = intercept(simulation=small, batch=2).seen
    solving = Stage(varies=Pixels(clamp=False), steps=1, lr=1e-3, optimizer="gauss_newton")
    attack = MatchingAttack(stages=(solving,), first_fully_connected=True, angle=True)

    def run(checkpoint: Checkpoint | None = None) -> Reconstruction:
        generator = torch.Generator().manual_seed(0)
        return attack(seen, generator=generator, checkpoint=checkpoint)

    whole = run()
    assert whole.iterations > 0
    path = tmp_path / "cell.safetensors"
    with pytest.raises(BreakError):
        run(BreaksOff(path, 0))
    again = run(Checkpoint(path, 0))
    assert torch.equal(again.images, whole.images)
    assert again.objective == whole.objective
    assert again.iterations == whole.iterations

"""Linking on planted people, on noise, and on what a federation sends; measures in closed form."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from fedaudit.attacks.templates.linking import embed, link, link_observations, templates
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError, DataError
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.linkage import Links, judge, linkability

Intercept = Callable[..., Capture]
PEOPLE, WIDTH = 24, 48


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def planted(noise: float, seed: int = 0) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """Two photos of everybody, the second set shuffled, in a space that has turned and moved.

    Returns the two sets, faces of the server's own in both spaces, and everybody's mate.
    """
    people = draw(PEOPLE, WIDTH, seed=seed)
    turn = torch.linalg.qr(draw(WIDTH, WIDTH, seed=seed + 1))[0]
    common = 3 * draw(2, WIDTH, seed=seed + 2)
    own = draw(200, WIDTH, seed=seed + 3)
    order = torch.randperm(PEOPLE, generator=torch.Generator().manual_seed(seed + 4))
    first = people + noise * draw(PEOPLE, WIDTH, seed=seed + 5) + common[0]
    second = (people + noise * draw(PEOPLE, WIDTH, seed=seed + 6))[order] @ turn + common[1]
    return first, second, (own + common[0], own @ turn + common[1]), order.argsort()


# --- linking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_finds_everybody_through_rotation_and_shift(seed: int) -> None:
    first, second, anchors, mate = planted(0.3, seed)
    found = link(first, second, anchors=anchors)
    assert found.drift == "rotate"
    assert torch.equal(found.partner, mate)
    scored = judge([found], [mate])
    assert scored.linked.value == scored.rank1.value == 1
    assert scored.linked.low > 0.8
    # Without what has been undone, linking is a guess: that is what the anchors are for.
    for drift in ("none", "center"):
        guessed = judge([link(first, second, drift=drift)], [mate])
        assert guessed.linked.value < 0.3


def test_in_one_space_the_common_part_alone_is_removed() -> None:
    people, common = draw(PEOPLE, WIDTH), 30 * draw(1, WIDTH, seed=1)
    first = people + 0.8 * draw(PEOPLE, WIDTH, seed=2) + common
    second = people + 0.8 * draw(PEOPLE, WIDTH, seed=3) - common
    mate = torch.arange(PEOPLE)
    found = link(first, second)
    assert found.drift == "center"
    assert judge([found], [mate]).linked.value == 1
    assert judge([link(first, second, drift="none")], [mate]).auc < 0.95


def test_assignment_is_one_to_one_where_the_nearest_are_not() -> None:
    """Two of the first set are nearest to the same one; together they leave it to the closer."""
    second = torch.eye(3)
    first = torch.tensor([[1.0, 0, 0], [0.8, 0.7, 0], [0, 0, 1.0]])
    found = link(first, second)
    assert found.scores.argmax(1).tolist() == [0, 0, 2]
    assert found.partner.tolist() == [0, 1, 2]
    assert link(torch.eye(3), torch.eye(3)[:2]).partner.tolist() == [0, 1, -1]


def test_noise_is_linked_as_often_as_chance_says() -> None:
    """Whatever drift is chosen; the choice looks at no mate."""
    links, mates = [], []
    for seed in range(40):
        anchors = (draw(64, 16, seed=seed + 200), draw(64, 16, seed=seed + 300))
        links.append(link(draw(10, 16, seed=seed), draw(10, 16, seed=seed + 100), anchors=anchors))
        mates.append(torch.arange(10))
    scored = judge(links, mates)
    assert scored.chance == pytest.approx(0.1)
    assert scored.linked.low < 0.1 < scored.linked.high
    assert scored.rank1.low < 0.1 < scored.rank1.high
    assert scored.auc == pytest.approx(0.5, abs=0.05)
    assert scored.eer == pytest.approx(0.5, abs=0.05)
    assert scored.tpr is not None
    assert scored.tpr.low < 0.01 < scored.tpr.high
    assert scored.d_sys < 0.1


def test_bad_input() -> None:
    with pytest.raises(AttackError, match="one width"):
        link(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(AttackError, match="no template"):
        link(torch.ones(0, 3), torch.ones(2, 3))
    with pytest.raises(AttackError, match="anchors"):
        link(torch.ones(2, 3), torch.ones(2, 3), drift="rotate")
    with pytest.raises(DataError, match="of two"):
        judge([link(torch.eye(3), torch.eye(3))], [torch.full((3,), -1)])


# --- what a federation sends ----------------------------------------------------------------------


def test_reads_templates_of_each_kind(intercept: Intercept) -> None:
    seen = intercept(method="fedgc", network="small_cnn", batch=2).seen
    assert templates(seen).shape == (15, 128)
    centers = ClusterCenters(draw(2, 128), 1.3)
    without = tuple(s for s in seen.shared if not isinstance(s, ClassEmbeddings))
    assert templates(replace(seen, shared=(*without, centers))) is centers.centers
    with pytest.raises(AttackError, match="sent none of them"):
        templates(replace(seen, shared=without))
    seen = intercept(method="fedavg", network="small_cnn", batch=2).seen
    assert templates(seen).shape == (1, 30 * 128)


def test_rows_of_two_rounds_are_linked_and_noise_is_not(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    """Two rounds in which a client trained on different photos."""
    simulation = federate(method="fedgc", network="small_cnn", local_steps=2, batch_size=8)
    state, _ = simulation.train(simulation.fresh(), range(1, 2))
    later, _ = simulation.train(state, range(2, 4))
    first = intercept(simulation=simulation, state=state, batch=8).seen
    second = intercept(simulation=simulation, state=later, batch=8, target=2).seen
    own = draw(40, 3, 32, 32).sigmoid()
    torch.testing.assert_close(embed(first, own).norm(dim=1), torch.ones(40))
    assert not torch.equal(embed(first, own), embed(second, own))
    found, again = (link_observations([first], [second], faces=own) for _ in range(2))
    assert torch.equal(found.scores, again.scores)
    assert torch.equal(found.partner, again.partner)
    mate = torch.arange(15)
    assert judge([found], [mate]).linked.value == 1
    blind = without_update(first, torch.Generator().manual_seed(0))
    control = judge([link_observations([blind], [second], faces=own)], [mate])
    assert control.linked.value < 0.4


# --- measures -------------------------------------------------------------------------------------


def test_linkability_in_closed_form() -> None:
    even = torch.linspace(0, 1, 20_001)
    assert linkability(even, even) == 0
    assert linkability(even + 2, even) == 1
    # Mated uniform on [½, 3⁄2], others on [0, 1]: what lies above 1 is mated for sure, one half;
    # in between both are as likely.
    assert linkability(even + 0.5, even) == pytest.approx(0.5, abs=0.01)
    # Lower scores than those of others tell nothing less: the ratio is what counts, not the side.
    assert linkability(even - 0.5, even) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.5])
def test_linkability_of_two_normals(shift: float) -> None:
    def integrand(s: float) -> float:
        p, q = norm.pdf(s, shift), norm.pdf(s)
        return float(p * max(0.0, 2 * (p / q) / (1 + p / q) - 1))

    exact, _ = quad(integrand, -8, 8 + shift, points=[shift / 2], limit=200)
    grid = torch.from_numpy(norm.ppf((np.arange(40_000) + 0.5) / 40_000))
    assert linkability(grid + shift, grid) == pytest.approx(exact, abs=0.01)


def test_verification_curve_of_two_normals() -> None:
    """Of d′ = 2: area Φ(√2), equal errors of Φ(−1), and 37 % at a false positive rate of 1 %."""
    grid = torch.from_numpy(norm.ppf((np.arange(1000) + 0.5) / 1000))
    size = len(grid)
    scores = torch.cat([torch.diag(grid + 2), torch.zeros(size, 1)], 1)
    # One mated score in each row's own column, all others spread over the non-mated quantiles.
    others = grid.repeat(size)[: size * size].view(size, size)
    scores = torch.cat([torch.where(torch.eye(size) > 0, scores[:, :size], others)], 1)
    links = Links(scores, torch.arange(size), "none", 0.0)
    found = judge([links], [torch.arange(size)])
    assert found.auc == pytest.approx(norm.cdf(math.sqrt(2)), abs=0.005)
    assert found.eer == pytest.approx(norm.cdf(-1), abs=0.005)
    assert found.tpr is not None
    assert found.tpr.value == pytest.approx(norm.cdf(2 - norm.ppf(0.99)), abs=0.01)
    assert found.non_mated == size * (size - 1)


def test_a_false_positive_rate_needs_pairs() -> None:
    rows = F.normalize(draw(10, 8), dim=1)
    assert judge([link(rows, rows)], [torch.arange(10)]).tpr is None

"""The matching engine: shares add up, the truth explains everything, a sweep costs B passes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients, total
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.distances import cosine_distance
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.local_steps import dummy_update_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.gradient_descent import (
    LEAST_STEP,
    Search,
    cosine_ramp,
    exponential_decay,
    step_decay,
)
from fedaudit.attacks.search.movers.mover import Plan, Task
from fedaudit.attacks.search.movers.round_wise import Movement
from fedaudit.attacks.search.span_matching import SpanMatching, is_left_to_spans
from fedaudit.attacks.search.trace import Trace
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.data.face_set import FaceSet

Intercept = Callable[..., Capture]


def engine(seen: Observation, *, use_first_fc: bool = True) -> Matching:
    generator = torch.Generator().manual_seed(0)
    return Matching(gather(seen), use_first_fc=use_first_fc, generator=generator)


def comparison(seen: Observation, *, use_first_fc: bool) -> Matching | SpanMatching:
    """The one that an attack takes."""
    evidence = gather(seen)
    if is_left_to_spans(evidence, (), use_first_fc=use_first_fc):
        return SpanMatching(evidence, angle=True)
    return engine(seen, use_first_fc=use_first_fc)


def in_order(captured: Capture) -> Tensor:
    """The secret images as the attack numbers them: by ascending label."""
    assert captured.secret is not None
    return captured.secret.images[captured.secret.labels.argsort(stable=True)]


def flat(gradients: Gradients) -> Tensor:
    return torch.cat([g.detach().flatten() for g in gradients])


KINDS: dict[str, dict[str, Any]] = {
    "labels": {"use_first_fc": False},
    "upstream": {},
    "free": {"defense": "private_projector", "network": "small_cnn"},
    "free, head alone withheld": {"defense": "dplc", "use_first_fc": False, "network": "small_cnn"},
    "pooled": {"network": "face_pooled"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_shares_add_up(kind: str, intercept: Intercept) -> None:
    options = dict(KINDS[kind])
    use_first_fc = options.pop("use_first_fc", True)
    captured = intercept(batch=4, **options)
    matching = engine(captured.seen, use_first_fc=use_first_fc)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert matching.separable
    assert bool(matching.free) == kind.startswith("free")
    whole = flat(matching.gradients(images, range(4))[0])
    halves = [matching.gradients(images[rows], rows)[0] for rows in ([0, 2], [1, 3])]
    torch.testing.assert_close(
        flat(total(halves)), whole, rtol=1e-3, atol=1e-5 * float(whole.norm())
    )


def test_where_shares_do_not_add_up_it_says_so(intercept: Intercept) -> None:
    """A withheld head at batch 4: only of all images together is known what they span."""
    matching = comparison(intercept(batch=4, defense="dplc").seen, use_first_fc=True)
    assert isinstance(matching, SpanMatching)
    assert not matching.separable


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("options", "use_first_fc"),
    [
        ({}, True),
        ({}, False),
        ({"defense": "dplc"}, True),
        ({"defense": "private_projector", "settings": {"private": ("head.",)}}, True),
        ({"network": "face_pooled"}, True),
        ({"network": "mobilefacenet", "arguments": {"norm": "group"}}, True),
    ],
    ids=["none", "none, gradient alone", "dplc", "local head", "pooled", "mobile"],
)
def test_the_truth_explains_everything(
    options: dict[str, Any], use_first_fc: bool, batch: int, intercept: Intercept, faces: FaceSet
) -> None:
    captured = intercept(batch=batch, **options)
    matching = comparison(captured.seen, use_first_fc=use_first_fc)
    others = faces.images[[30 * k + 5 for k in range(6)]]
    matching.calibrate(others)
    truth = matching.objective(*matching.gradients(in_order(captured), range(batch)))
    wrong = matching.objective(*matching.gradients(others[:batch], range(batch)))
    assert float(truth.detach()) < 0.01
    assert float(wrong.detach()) > 0.4


def test_calibration_puts_generic_faces_at_one(intercept: Intercept, faces: FaceSet) -> None:
    matching = engine(intercept().seen)
    generic = faces.images[[11, 52, 93, 134, 175, 216, 257]]
    matching.calibrate(generic)
    terms = [matching.gradients(image[None], [0]) for image in generic]
    gradient = [float(cosine_distance(g, matching.target).detach()) for g, _ in terms]
    feature = [float(d.detach()) for _, d in terms]
    assert matching.scales == pytest.approx((sorted(gradient)[3], sorted(feature)[3]), rel=1e-5)


def test_free_variables_are_drawn_from_the_generator(intercept: Intercept) -> None:
    seen = intercept(batch=2, network="small_cnn", defense="private_projector").seen
    one, two = engine(seen), engine(seen)
    assert len(one.free) == 2
    assert all(torch.equal(a, b) for a, b in zip(one.free, two.free, strict=True))
    assert not torch.equal(one.free[0], one.free[1])
    assert set(one.names) == set(seen.before)


def test_unknown_labels_need_a_face_network(intercept: Intercept) -> None:
    evidence = gather(intercept().seen)
    from dataclasses import replace

    plain = replace(evidence, model=torch.nn.Linear(2, 2), labels=None, first_fc=None)
    with pytest.raises(AttackError, match='grant = \\["labels"\\]'):
        Matching(plain)


# --- round-wise ---------------------------------------------------------------------------------


def leaves(count: int, seed: int = 0) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 32, 32, generator=noise).requires_grad_() for _ in range(count)]


def no_prior(variable: Tensor, images: Tensor, left: float) -> Tensor:
    del variable, left
    return images.new_zeros(())


class FullTrace(Trace):
    """Remembers every value."""

    def __init__(self) -> None:
        super().__init__(10_000)
        self.values: list[float] = []

    def add(self, value: float) -> None:
        super().add(value)
        self.values.append(value)


def move(matching: Matching, variables: Sequence[Tensor], plan: Plan) -> list[float]:
    trace = FullTrace()
    Movement(Task(matching, variables, lambda v: v, no_prior, trace), plan).run()
    return trace.values


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_sweep_costs_one_single_image_pass_an_image_and_step(
    count: int, rounds: int, intercept: Intercept
) -> None:
    matching = engine(intercept(batch=count).seen)
    reported = move(matching, leaves(count), Plan(steps=7, lr=0.01, rounds=rounds))
    round_wise = rounds > 0 and count > 1
    # One pass an image fills the held sums, and one a turn brings them up to date.
    assert matching.evaluations == count * 7 + (count + rounds * count if round_wise else 0)
    assert len(reported) == (count * 7 if round_wise else 7)


def test_a_round_moves_one_image_and_holds_the_others(
    intercept: Intercept, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = intercept(batch=2)
    matching = engine(captured.seen)
    moved: list[int] = []
    variables = leaves(2)
    before = [v.detach().clone() for v in variables]
    original = Matching.gradients

    def watch(
        self: Matching, images: Tensor, which: Sequence[int], *rest: Any, **kind: Any
    ) -> tuple[Gradients, Tensor]:
        moved.append(which[0])
        assert len(which) == 1
        if moved[2:] and moved[-1] == 0:
            assert torch.equal(variables[1].detach(), before[1])
        return original(self, images, which, *rest, **kind)

    monkeypatch.setattr(Matching, "gradients", watch)
    move(matching, variables, Plan(steps=3, lr=0.05, rounds=1))
    assert moved == [0, 1] + [0] * 4 + [1] * 4


@pytest.mark.parametrize("defense", ["none", "dplc", "private_projector"])
@pytest.mark.parametrize("rounds", [0, 4])
def test_the_objective_falls(defense: str, rounds: int, intercept: Intercept) -> None:
    matching = engine(intercept(batch=2, defense=defense).seen)
    plan = Plan(
        steps=24,
        lr=0.05,
        rounds=rounds,
        optimizer="signed_adam",
        project=lambda _, value: value.clamp(0, 1),
    )
    variables = leaves(2)
    reported = move(matching, variables, plan)
    assert reported[-1] < 0.9 * reported[0]
    assert all(float(v.detach().min()) >= 0 and float(v.detach().max()) <= 1 for v in variables)


def test_no_steps_move_nothing(intercept: Intercept) -> None:
    matching = engine(intercept().seen)
    (variable,) = leaves(1)
    before = variable.detach().clone()
    move(matching, [variable], Plan(steps=0, lr=1.0))
    assert torch.equal(variable.detach(), before)


# --- search and objectives ----------------------------------------------------------------------


def test_search_keeps_the_best_value_it_has_seen() -> None:
    x = torch.tensor([1.0], requires_grad=True)
    search = Search([x], 3.0, 20, lambda step, steps: 1.0)
    seen = []
    for _ in range(20):
        seen.append((float(x.detach()) - 0.3) ** 2)
        search.step((x - 0.3).square)
    search.restore()
    assert search.best == pytest.approx(min(seen))
    assert (float(x.detach()) - 0.3) ** 2 == pytest.approx(min(seen))
    assert search.done == 20


def test_signed_steps_have_one_length_and_stay_in_the_box() -> None:
    x = torch.tensor([[0.5, 0.5]], requires_grad=True)
    search = Search(
        [x],
        0.1,
        8,
        lambda step, steps: 1.0,
        optimizer="signed_adam",
        project=[lambda value: value.clamp(0, 1)],
    )
    search.step(lambda: (x * torch.tensor([1e-6, -1e6])).sum(1))
    torch.testing.assert_close(x.detach(), torch.tensor([[0.4, 0.6]]), rtol=1e-4, atol=0)
    for _ in range(7):
        search.step(lambda: (x * torch.tensor([1.0, -1.0])).sum(1))
    assert x.tolist() == [[0.0, 1.0]]


def test_restarts_do_not_touch_each_other() -> None:
    """Two in one search end where each ends alone, and each keeps its own best."""
    starts = torch.tensor([[3.0], [-2.0]])

    def losses(x: Tensor) -> Tensor:
        return (x - 0.3).square().sum(1)

    ends = []
    for rows in (starts, starts[:1], starts[1:]):
        x = rows.clone().requires_grad_()
        search = Search([x], 0.5, 12)
        for _ in range(12):
            search.step(lambda x=x: losses(x))  # type: ignore[misc]
        search.restore()
        assert torch.equal(search.best, losses(x.detach()))
        ends.append(x.detach())
    assert torch.equal(ends[0], torch.cat(ends[1:]))


def test_lbfgs_solves_a_valley_that_adam_does_not() -> None:
    """Rosenbrock's function, from its usual start."""

    def loss(x: Tensor) -> Tensor:
        return 100 * (x[:, 1] - x[:, 0].square()).square() + (1 - x[:, 0]).square()

    ends = {}
    for optimizer in ("lbfgs", "adam"):
        x = torch.tensor([[-1.2, 1.0]], requires_grad=True)
        search = Search([x], 1.0, 6, optimizer=optimizer)
        for _ in range(6):
            search.step(lambda x=x: loss(x))  # type: ignore[misc]
        search.restore()
        ends[optimizer] = float(loss(x.detach()))
    assert ends["lbfgs"] < 1e-8
    assert ends["adam"] > 1e-2


@pytest.mark.parametrize("moved", [False, True])
def test_a_step_of_lbfgs_does_not_look_again_where_the_one_before_ended(*, moved: bool) -> None:
    """Unless somebody moved the variables meanwhile."""
    looked: list[float] = []
    x = torch.tensor([[3.0]], requires_grad=True)
    search = Search([x], 0.1, 2, optimizer="lbfgs")

    def losses() -> Tensor:
        looked.append(float(x.detach()))
        return (x[:, 0] - 1).square().square()

    search.step(losses)
    end = looked[-1]
    assert float(x.detach()) == pytest.approx(end, abs=1e-6)
    if moved:
        with torch.no_grad():
            x += 1
    count = len(looked)
    first = search.step(losses)
    assert float(first) == pytest.approx((float(end) + moved - 1) ** 4, rel=1e-4)
    assert (looked[count] == pytest.approx(end + 1)) is moved


def test_schedules() -> None:
    ramp = [cosine_ramp(step, 100) for step in range(100)]
    assert ramp[0] == pytest.approx(0.2)
    assert max(ramp) == ramp[4]
    assert ramp[-1] < 0.001
    assert [step_decay(step, 8) for step in range(8)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]
    )
    falls = [exponential_decay(step, 100) for step in range(101)]
    assert falls[0] == pytest.approx(0.2)
    assert falls[-1] == pytest.approx(LEAST_STEP)
    assert falls[50] / falls[60] == pytest.approx(falls[80] / falls[90])


def test_objectives_against_their_formulas() -> None:
    noise = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(3, generator=noise), torch.randn(2, 2, generator=noise)] for _ in range(2))
    joined = torch.cosine_similarity(flat(tuple(a)), flat(tuple(b)), dim=0)
    assert float(cosine_distance(a, b)) == pytest.approx(1 - float(joined), rel=1e-5)
    assert float(cosine_distance(a, [3 * t for t in a])) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(a, [-t for t in a])) == pytest.approx(2, rel=1e-6)
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert float(total_variation(image)) == pytest.approx((0.5 + 0.5) / 2 + (1.0 + 0.0) / 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_replay_explains_what_one_gradient_does_not(batch: int, intercept: Intercept) -> None:
    """Four steps with momentum: the true images give the delta that the client shared."""
    training = LocalTraining(lr=0.05, steps=4, batch_size=batch, momentum=0.5)
    captured = intercept(batch=batch, network="small_cnn", method="fedavg", training=training)
    evidence = gather(captured.seen)
    generator = torch.Generator().manual_seed(0)
    left = {}
    for mode in ("start", "path", "replay"):
        dummy = dummy_update_of(captured.seen, evidence, mode, generator)
        assert (dummy is None) == (mode == "start")
        matching = Matching(evidence, use_first_fc=False, angle=False, dummy=dummy)
        assert matching.separable == (mode == "start")
        found = matching.gradients(in_order(captured), range(batch))
        left[mode] = float(matching.objective(*found).detach())
    assert left["replay"] < 1e-4
    assert left["path"] < left["start"]
    assert left["start"] > 10 * left["replay"]


@pytest.mark.slow
def test_unknown_training_is_guessed(intercept: Intercept) -> None:
    training = LocalTraining(lr=0.1, steps=4)
    seen = intercept(network="small_cnn", method="fedavg", training=training, threat="B").seen
    assert seen.training is None
    dummy = dummy_update_of(seen, gather(seen), "replay", torch.Generator().manual_seed(0))
    assert dummy is not None
    assert dummy.training.steps * dummy.training.lr == pytest.approx(0.4, rel=0.7)

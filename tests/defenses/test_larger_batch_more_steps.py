"""More photos behind an update, and more steps: what is sent, and how rows of a study pair."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.trial import Trial
from fedaudit.defenses.larger_batch import LargerBatch
from fedaudit.defenses.more_steps import MoreSteps
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.reports.trials import Trials
from fedaudit.scoring.score import score
from fedaudit.study.jobs import AttackJob, expand
from fedaudit.study.run_cell import originals
from fedaudit.study.study_check import check_study

Intercept = Callable[..., Capture]
Gradient = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
EIGHT = {"defense": "larger_batch", "settings": {"images": 8}}


def test_the_gradient_is_the_mean_over_all_photos(
    intercept: Intercept, gradient_of: Gradient
) -> None:
    capture = intercept(network="small_cnn", **EIGHT)
    assert capture.secret is not None
    assert capture.seen.update is not None
    assert len(capture.secret.images) == capture.seen.batch_size == 8
    model = build(capture.seen.model, capture.seen.before)
    expected = gradient_of(model, capture.secret.images, capture.secret.labels)
    for name, value in capture.seen.update.tensors.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_the_federation_trains_with_larger_steps(federate: Callable[..., Simulation]) -> None:
    simulation = federate(network="small_cnn", **EIGHT)
    assert simulation.local(LocalTraining(batch_size=1)).batch_size == 8
    assert simulation.local(LocalTraining(batch_size=16)).batch_size == 16
    small = {"batch_size": 2, "momentum": 0.0, "clients": 2}
    ours = federate(network="small_cnn", **EIGHT, **small)
    plain = federate(network="small_cnn", **small | {"batch_size": 8})
    (one, _), (other, _) = (s.train(s.fresh(), range(1, 2)) for s in (ours, plain))
    assert all(torch.equal(one.server[name], other.server[name]) for name in one.server)


def test_a_study_that_asks_for_more_gets_more() -> None:
    assert LargerBatch(images=4).photos(6) == 6
    assert MoreSteps(steps=2).local(LocalTraining(steps=5)).steps == 5


def test_clients_without_as_many_photos_are_refused(federate: Callable[..., Simulation]) -> None:
    simulation = federate(defense="larger_batch", settings={"images": 500})
    with pytest.raises(DataError, match=r"500 photos behind an update, and client 0 trains on"):
        simulation.fresh()


@pytest.mark.parametrize("wrong", [LargerBatch, MoreSteps])
def test_settings_out_of_range(wrong: type) -> None:
    for name in wrong.__dataclass_fields__:  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="must be ≥ 1, not 0"):
            wrong(**{name: 0})


def test_more_steps_move_the_weights_as_plain_sgd_does(
    intercept: Intercept, gradient_of: Gradient
) -> None:
    capture = intercept(
        network="small_cnn",
        method="fedavg",
        defense="more_steps",
        settings={"steps": 3},
        training=LocalTraining(lr=0.05),
    )
    seen, secret = capture.seen, capture.secret
    assert secret is not None
    assert seen.update is not None
    weights: Mapping[str, Tensor] = seen.before
    for _ in range(3):
        slope = gradient_of(build(seen.model, weights), secret.images, secret.labels)
        weights = {name: value - 0.05 * slope[name] for name, value in weights.items()}
    for name, value in seen.update.tensors.items():
        torch.testing.assert_close(value, weights[name] - seen.before[name], rtol=1e-3, atol=1e-6)


def test_more_steps_of_fedsgd_are_refused_before_anything_runs() -> None:
    scenario = Scenario("s", defenses=(Choice("none"), Choice("more_steps")))
    study = Study("s", (scenario,), data=Choice("synthetic"))
    with pytest.raises(ConfigError, match=r"defenses: more_steps: .*method = \"fedavg\""):
        check_study(study)
    check_study(replace(study, scenarios=(replace(scenario, method=Choice("fedavg")),)))


def test_rows_pair_on_the_audited_photos(intercept: Intercept) -> None:
    scenario = Scenario(
        "s",
        targets=4,  # two rounds of two clients: photos of the second start elsewhere
        defenses=(Choice("none"), Choice("larger_batch", {"images": 3})),
        attacks=(Choice("inverting_gradients"),),
    )
    study = Study("s", (scenario,), federation=Federation(clients=2), utility=False)
    cells = [job.cell for job in expand(study) if isinstance(job, AttackJob)]
    trials = []
    for cell in (c for c in cells if c.role == "audit"):
        secret = intercept(
            network="small_cnn",
            target=cell.target,
            defense=cell.defense,
            settings={"images": 3} if cell.defense == "larger_batch" else {},
        ).secret
        assert secret is not None
        turned = Reconstruction(secret.images.flip(0), torch.full((len(secret.images),), -1))
        scores, _, images = score(secret, turned, gallery=None, embed=None)
        assert torch.equal(images, originals(secret)["images"])
        trials.append(Trial(cell, scores, None, 0.0, 0, 0, 0.0, "none needed"))
    rows = [
        Trials(tuple(trials)).group("s", name, "inverting_gradients")
        for name in ("none", "larger_batch")
    ]
    ours, theirs = (row.scores() for row in rows)
    assert ours.keys() == theirs.keys()
    assert [ours[place].person for place in ours] == [theirs[place].person for place in ours]
    assert len({score.person for score in ours.values()}) == len(ours) == 4

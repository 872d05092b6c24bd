"""What a study's size is said to cost."""

from dataclasses import replace

from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.training import LocalTraining
from fedaudit.study.jobs import TrainJob, expand
from fedaudit.study.pass_cost import PassCost, training_seconds

NETWORK = Choice("lenet", {"width": 8})
TRAINING = LocalTraining(steps=4, batch_size=16)
FEDERATION = Federation(clients=5, rounds=30, training=TRAINING)


def test_the_time_that_models_take_to_train() -> None:
    study = Study(
        name="s",
        data=Choice("orl"),
        size=32,
        utility=True,
        utility_seeds=1,
        federation=FEDERATION,
        scenarios=(
            Scenario(
                name="fresh",
                network=replace(NETWORK, label="ours"),
                attacks=(Choice("quick"),),
                defenses=(Choice("none"), Choice("dpsgd")),
            ),
        ),
    )
    jobs = [job for job in expand(study) if isinstance(job, TrainJob)]
    assert len(jobs) == 3  # without a defense, with it, and of one place
    cost = PassCost("fresh", NETWORK, images=2, seconds=0.02, megabytes=1.0)
    # Each passes 30 rounds × 5 clients × 4 steps × 16 photos, at 0.01 s a photo.
    assert training_seconds(jobs, [cost]) == 3 * 96.0
    assert training_seconds(jobs, [replace(cost, network=Choice("face"))]) is None

"""FedSGD and FedAvg against autograd and a hand-written training loop."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.scenario import Federation, Scenario, keys_of, with_keys
from fedaudit.core.shared import Update
from fedaudit.defenses.dpsgd import DPSGD
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.aggregation import mean_update
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.fedprox import FedProx
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.local_training import is_withheld, train_locally
from fedaudit.federation.together import combine, training_of
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of

GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def task(network: str = "face", count: int = 4, seed: int = 0) -> ClientTask:
    spec = ModelSpec(network, {"classes": 5, "image_size": 16})
    faces = torch.Generator().manual_seed(1)
    return ClientTask(
        model=spec,
        before=parameters_of(build(spec, seed=2)),
        kept={},
        images=torch.rand(count, 3, 16, 16, generator=faces),
        labels=torch.arange(count) % 5,
        training=LocalTraining(lr=0.1, batch_size=count),
        share="gradient",
        generator=torch.Generator().manual_seed(seed),
    )


def sent(asked: ClientTask) -> Update:
    (update,) = train_locally(asked).shared
    assert isinstance(update, Update)
    return update


@pytest.mark.parametrize("network", ["face", "face_pooled", "small_cnn"])
def test_fedsgd_shares_the_gradient_of_the_mean_loss(network: str, gradient_of: GradientOf) -> None:
    asked = task(network)
    update = sent(asked)
    truth = gradient_of(build(asked.model, asked.before), asked.images, asked.labels)
    assert update.kind == "gradient"
    assert update.examples == 4
    assert set(update.tensors) == set(truth)
    for name, value in update.tensors.items():
        scale = float(truth[name].abs().max())
        torch.testing.assert_close(value, truth[name], rtol=1e-4, atol=1e-5 * scale)


def test_one_step_of_fedavg_is_minus_lr_times_the_gradient(gradient_of: GradientOf) -> None:
    asked = replace(task(), share="delta")
    update = sent(asked)
    truth = gradient_of(build(asked.model, asked.before), asked.images, asked.labels)
    assert update.kind == "delta"
    for name, value in update.tensors.items():
        # before + delta is rounded to 32 bits, which costs the delta its last digits.
        torch.testing.assert_close(-value / 0.1, truth[name], rtol=1e-3, atol=3e-6)


@pytest.mark.parametrize(("steps", "size"), [(3, 4), (5, 2), (4, 3)])
def test_several_steps_are_sgd_with_momentum(
    steps: int, size: int, gradient_of: GradientOf
) -> None:
    training = LocalTraining(lr=0.05, steps=steps, batch_size=size, momentum=0.9)
    asked = replace(task(seed=7), share="delta", training=training)
    update = sent(asked)

    generator = torch.Generator().manual_seed(7)
    torch.randint(2**62, (1,), generator=generator)  # the client's own start
    loader = DataLoader(
        TensorDataset(asked.images, asked.labels), size, shuffle=size < 4, generator=generator
    )
    batches = [batch for _ in range(steps) for batch in loader][:steps]
    model = build(asked.model, asked.before)
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for images, labels in batches:
        slope = gradient_of(model, images, labels)
        with torch.no_grad():
            for name, p in model.named_parameters():
                velocity[name] = 0.9 * velocity[name] + slope[name]
                p.sub_(0.05 * velocity[name])
    after = parameters_of(model)
    for name, value in update.tensors.items():
        torch.testing.assert_close(value, after[name] - asked.before[name], rtol=1e-3, atol=1e-5)


def test_the_loss_is_that_of_the_last_step() -> None:
    asked = task()
    model = build(asked.model, asked.before)
    loss = criterion_of(model)(model(asked.images), asked.labels)
    assert train_locally(asked).loss == pytest.approx(float(loss.detach()), rel=1e-5)


def test_the_task_is_left_as_it_was() -> None:
    asked = task()
    before = {name: value.clone() for name, value in asked.before.items()}
    train_locally(replace(asked, share="delta"))
    assert all(torch.equal(before[name], asked.before[name]) for name in before)


def test_a_diverging_client_says_what_to_lower() -> None:
    training = LocalTraining(lr=1e20, steps=4, batch_size=4)
    with pytest.raises(AttackError, match="lower lr or local_steps"):
        train_locally(replace(task("small_cnn"), share="delta", training=training))


def test_withheld_parameters_stay() -> None:
    returned = train_locally(replace(task(), withheld=("head.", "embedding.")))
    (update,) = returned.shared
    assert isinstance(update, Update)
    assert set(returned.kept) == {"embedding.weight", "head.weight"}
    assert all(name.startswith("body.") for name in update.tensors)
    assert is_withheld("head.weight", ("head.",))
    assert not is_withheld("header.weight", ("head.",))
    assert not is_withheld("head.weight", ())


# --- the server ---------------------------------------------------------------------------------


def updates(*examples: int | None) -> list[Update]:
    return [
        Update("delta", {"w": torch.tensor([float(k), 10.0 * k])}, n)
        for k, n in enumerate(examples, 1)
    ]


@pytest.mark.parametrize(
    ("examples", "expected"),
    [((1, 1), 1.5), ((3, 1), 1.25), ((1, 3, 4), 2.375), ((None, None), 1.5)],
)
def test_the_mean_is_weighted_by_examples(
    examples: tuple[int | None, ...], expected: float
) -> None:
    torch.testing.assert_close(
        mean_update(updates(*examples))["w"], torch.tensor([expected, 10 * expected])
    )


def test_the_server_steps_along_the_mean_and_leaves_the_rest() -> None:
    before = {"w": torch.ones(2), "untouched": torch.ones(1)}
    training = LocalTraining(lr=0.5, steps=9, momentum=0.9)
    clients = updates(1, 1)
    stepped = FedSGD().combine(before, clients, training)
    torch.testing.assert_close(stepped["w"], torch.tensor([1 - 0.75, 1 - 7.5]))
    added = combine(FedAvg(), before, clients, training)
    torch.testing.assert_close(added["w"], torch.tensor([2.5, 16.0]))
    assert all(after["untouched"] is before["untouched"] for after in (stepped, added))
    assert FedSGD().local(training) == replace(training, steps=1, momentum=0.0)
    assert training_of(FedAvg(), NoDefense(), training) == training


def test_fedsgd_over_clients_is_the_gradient_of_all_their_photos(gradient_of: GradientOf) -> None:
    """McMahan et al., section 2: the weighted mean is one step on the union."""
    whole = task(count=5)
    parts = [
        replace(whole, images=whole.images[rows], labels=whole.labels[rows])
        for rows in (slice(0, 2), slice(2, 5))
    ]
    mean = mean_update([sent(part) for part in parts])
    truth = gradient_of(build(whole.model, whole.before), whole.images, whole.labels)
    for name, value in mean.items():
        torch.testing.assert_close(value, truth[name], rtol=1e-3, atol=1e-5)


# --- optimizers, decay, FedProx -------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("mu", [0.0, 3.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_by_hand(
    optimizer: Literal["sgd", "adam", "adamw"], mu: float, decay: float, gradient_of: GradientOf
) -> None:
    """The textbook's update rules; the proximal term is the slope of μ/2·‖w − w_global‖²."""
    training = LocalTraining(
        lr=2e-3, steps=3, batch_size=4, optimizer=optimizer, weight_decay=decay, proximal=mu
    )
    asked = replace(task(), share="delta", training=training)
    update = sent(asked)
    model = build(asked.model, asked.before)
    first = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for t in range(1, 4):
        slope = gradient_of(model, asked.images, asked.labels)
        with torch.no_grad():
            for name, p in model.named_parameters():
                g = slope[name] + mu * (p - asked.before[name])
                if optimizer == "adamw":
                    p.mul_(1 - 2e-3 * decay)
                else:
                    g += decay * p
                if optimizer == "sgd":
                    p.sub_(2e-3 * g)
                    continue
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g * g
                size = (second[name] / (1 - 0.999**t)).sqrt() + 1e-8
                p.sub_(2e-3 * first[name] / (1 - 0.9**t) / size)
    after = parameters_of(model)
    got = torch.cat([v.flatten() for v in update.tensors.values()])
    true = torch.cat([(after[n] - asked.before[n]).flatten() for n in update.tensors])
    assert float((got - true).norm() / true.norm()) < 1e-2


def test_fedprox_holds_clients_near_the_global_model() -> None:
    training = LocalTraining(lr=0.05, steps=8, batch_size=4)
    asked = replace(task(), share="delta")

    def length(method: FedAvg | FedProx) -> float:
        update = sent(replace(asked, training=training_of(method, NoDefense(), training)))
        return float(torch.cat([v.flatten() for v in update.tensors.values()]).norm())

    assert length(FedProx(mu=5.0)) < 0.9 * length(FedAvg())
    assert length(FedProx(mu=0.0)) == length(FedAvg())
    assert FedProx(mu=0.3).local(training).proximal == 0.3
    assert FedProx(mu=0.3).local(replace(training, proximal=0.2)).proximal == 0.2
    with pytest.raises(ValueError, match="mu must be"):
        FedProx(mu=-1)
    before, clients = {"w": torch.ones(2)}, updates(1, 1)
    proximal = combine(FedProx(), before, clients, training)["w"]
    assert torch.equal(proximal, combine(FedAvg(), before, clients, training)["w"])


def test_the_proximal_pull_is_not_noised_and_needs_no_privacy() -> None:
    """Under DP-SGD with its gradients clipped to nothing, FedProx alone moves the weights."""
    training = LocalTraining(lr=0.1, steps=1, batch_size=4, weight_decay=0.5)
    tiny = DPSGD(noise_multiplier=0.0, max_grad_norm=1e-9)
    asked = replace(task(), share="delta", training=training)
    update = tiny(train_locally)(asked).shared[0]
    assert isinstance(update, Update)
    for name, value in update.tensors.items():
        torch.testing.assert_close(value, -0.05 * asked.before[name], rtol=1e-3, atol=1e-6)
    pulled = replace(training, proximal=4.0, steps=3)
    far = tiny(train_locally)(replace(asked, training=pulled)).shared[0]
    free = tiny(train_locally)(replace(asked, training=replace(pulled, proximal=0.0))).shared[0]
    assert isinstance(far, Update)
    assert isinstance(free, Update)
    for name, value in far.tensors.items():
        if float(value.norm()):
            assert float(value.norm()) < float(free.tensors[name].norm())


@pytest.mark.parametrize("settings", [Federation(), Scenario(name="a")])
def test_settings_of_a_study_become_local_training(settings: Any) -> None:
    keys = {
        "lr": 0.3,
        "local_steps": 7,
        "batch_size": 6,
        "momentum": 0.5,
        "optimizer": "adam",
        "weight_decay": 0.1,
        "proximal": 0.2,
        "batch_norm": "eval",
        "augmentation": ("flip", "crop"),
    }
    asked = with_keys(settings, keys)
    expected = LocalTraining(0.3, 7, 6, 0.5, "adam", 0.1, 0.2, "eval", ("flip", "crop"))
    if isinstance(asked, Scenario):
        assert asked.audited_training == expected
        smaller = with_keys(asked, {"local_batch_size": 2})
        assert smaller.audited_training == replace(expected, batch_size=2)
        assert smaller.batch_size == 6
    else:
        assert asked.training == expected
    assert with_keys(settings, keys_of(asked)) == asked
    assert keys_of(asked) | keys == keys_of(asked)

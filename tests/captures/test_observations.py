import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.captures.format.capture_facts import DpClaim, Facts, Keywords
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.message_header import Message
from fedaudit.captures.format.observations import observations
from fedaudit.captures.format.stated_training import local_training
from fedaudit.captures.record.recording import Recording
from fedaudit.core.capture import Capture
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import Aggregate, Buffers, Update
from fedaudit.models.build_network import build

SHAPE = (3, 8, 8)
LR = 0.1


def photos(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randint(5, (count,), generator=generator)


def trained(
    network: nn.Module, images: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after one step, and the gradient; the network is left as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.zero_grad()
    F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    gradient = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    torch.optim.SGD(network.parameters(), lr=LR).step()
    after = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(before)
    return after, gradient


def mlp() -> nn.Module:
    return build(ModelSpec("mlp", {"classes": 5, "image_size": 8, "hidden": 32}))


def record_mlp(folder: Path, augmentation: str | None = None) -> Recording:
    return fedaudit.recording(
        folder,
        model="mlp",
        arguments={"hidden": 32},
        classes=5,
        image_shape=SHAPE,
        augmentation=augmentation,
        lr=LR,
        local_steps=1,
        batch_size=1,
    )


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def update_of(capture: Capture) -> Update:
    (update,) = (s for s in capture.seen.shared if isinstance(s, Update))
    return update


@pytest.mark.parametrize(
    "form", ["weights", "delta", "negated", "gradient", "prefixed", "numbered"]
)
def test_an_attack_gets_the_photo_out_of_every_form(tmp_path: Path, form: str) -> None:
    network = mlp()
    before = network.state_dict()
    images, labels = photos(1)
    after, gradient = trained(network, images, labels)
    record = record_mlp(tmp_path / "c")
    prefix = "module." if form == "prefixed" else ""
    numbers = {name: str(place) for place, name in enumerate(before)}
    if form == "numbered":  # as Flower's older API, which knows no names
        record.broadcast(1, {numbers[n]: v for n, v in before.items()})
    else:
        record.broadcast(1, {prefix + n: v for n, v in before.items()})
    if form in {"weights", "prefixed"}:
        sent = {prefix + n: v for n, v in after.items()}
        record.update(1, "c", sent, kind="weights", examples=40)
    elif form == "numbered":
        sent = {numbers[n]: v for n, v in after.items()}
        record.update(1, "c", sent, kind="weights", examples=40)
    elif form == "gradient":
        record.update(1, "c", gradient, kind="gradient", examples=1)
    else:
        sign: Literal[1, -1] = -1 if form == "negated" else 1
        sent = {n: sign * (v - before[n]) for n, v in after.items()}
        record.update(1, "c", sent, kind="delta", sign=sign, examples=40)
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    assert capture.secret is None
    seen = capture.seen
    assert (seen.batch_size, seen.num_classes, seen.image_shape) == (1, 5, SHAPE)
    assert seen.defense is None  # not stated
    update = update_of(capture)
    scale = 1 if form == "gradient" else -LR
    assert torch.allclose(flat(update.tensors), scale * flat(gradient), atol=1e-7)
    found = create("attacks", "analytic", {})(seen, generator=torch.Generator())
    assert torch.allclose(found.images, images, atol=1e-3)
    assert torch.equal(found.labels, labels)


def test_buffers_are_split_off_and_count_from_zero(tmp_path: Path) -> None:
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    images = torch.rand(2, 3, 16, 16)
    network(images)  # the broadcast has been trained before
    before = {n: v.clone() for n, v in network.state_dict().items()}
    network(images)
    network(images)
    after = network.state_dict()
    sent = {n: v + (1e-3 if v.is_floating_point() else 0) for n, v in after.items()}
    averaged = {n: v + 0.5 if "num_batches" in n else v for n, v in before.items()}
    record = fedaudit.recording(tmp_path / "c", model="convnet", arguments={"width": 4}, classes=5)
    record.broadcast(1, before)
    record.update(1, "weights", sent, kind="weights")
    record.update(1, "delta", {n: v - before[n] for n, v in sent.items()}, kind="delta")
    record.broadcast(2, averaged)  # a server that averages counters
    record.update(2, "weights", sent, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    captures = list(observations(stored))
    assert not stored.problems
    assert len(captures) == 3
    parameters = {name for name, _ in network.named_parameters()}
    for capture in captures:
        assert set(update_of(capture).tensors) == parameters
        buffers = capture.seen.buffers
        assert buffers is not None
        assert set(buffers.tensors) == set(before) - parameters
        for name, value in buffers.tensors.items():
            if name.endswith("num_batches_tracked"):
                assert int(value) == 2
            else:
                assert torch.allclose(value, sent[name], atol=1e-6)
        assert not [n for n in capture.seen.before if n.endswith("num_batches_tracked")]


def test_identical_updates_are_one_aggregate(tmp_path: Path) -> None:
    """As Flower's SecAgg+ hands them out: everybody's message holds the mean."""
    network = mlp()
    before = network.state_dict()
    gradients, weights = [], []
    for client in range(3):
        after, gradient = trained(network, *photos(1, seed=client))
        gradients.append(flat(gradient))
        weights.append(after)
    counts = (1, 1, 2)
    mean = {
        n: sum(c * w[n].double() for c, w in zip(counts, weights, strict=True)).float() / 4  # type: ignore[union-attr]
        for n in before
    }
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    for client, count in enumerate(counts):
        record.update(1, client, mean, kind="weights", examples=count)
    record.update(1, "alone", weights[0], kind="weights", examples=1)
    captures = list(observations(StoredCapture(tmp_path / "c")))
    assert [c.seen.client for c in captures] == ["aggregate of 3 clients", "alone"]
    (aggregate,) = (s for s in captures[0].seen.shared if isinstance(s, Aggregate))
    assert aggregate.weights == (1.0, 1.0, 2.0)
    expected = -LR * (gradients[0] + gradients[1] + 2 * gradients[2])
    assert torch.allclose(flat(aggregate.tensors), expected, atol=2e-6)
    assert captures[0].seen.batch_size == 3  # one step of one image each
    assert not [s for s in captures[1].seen.shared if isinstance(s, Aggregate)]


def test_a_recorded_sum_of_weights_is_compared_with_as_many_broadcasts(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    after = [trained(network, *photos(1, seed=client))[0] for client in range(2)]
    total = {n: 2 * after[0][n] + 3 * after[1][n] for n in before}
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    record.update(1, "sum", total, kind="weights", aggregate=True, weights=(2, 3))
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    (aggregate,) = capture.seen.shared
    assert isinstance(aggregate, Aggregate)
    expected = {n: total[n] - 5 * before[n] for n in before}
    assert torch.allclose(flat(aggregate.tensors), flat(expected), atol=1e-5)
    assert capture.seen.batch_size == 2  # two clients, one step of one image each


def test_clients_that_did_not_train_are_no_aggregate(tmp_path: Path) -> None:
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, mlp().state_dict())
    for client in range(2):
        record.update(1, client, mlp().state_dict(), kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert "nothing to attack" in str(stored.problems[0])


def test_one_bad_client_never_stops_the_others(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    names = list(before)
    good = {c: trained(network, *photos(1, seed=c))[0] for c in range(6)}
    for client, after in good.items():
        record.update(1, client, after, kind="weights")
    nan = {**good[0], names[0]: good[0][names[0]] * float("nan")}
    record.update(1, "nan", nan, kind="weights")
    record.update(1, "shape", {**good[0], names[0]: torch.zeros(2, 2)}, kind="weights")
    record.update(1, "extra", {**good[0], "more.weight": torch.zeros(2)}, kind="weights")
    record.update(1, "missing", {n: good[0][n] for n in names[1:]}, kind="weights")
    whole = {**good[0], names[0]: good[0][names[0]].long()}
    record.update(1, "whole", whole, kind="weights")
    folder = tmp_path / "c" / "round-000001"
    cut = next(folder.glob("update-3-*"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    stored = StoredCapture(tmp_path / "c")
    clients = {c.seen.client for c in observations(stored)}
    assert clients == {"0", "1", "2", "4", "5"}
    told = {Path(p.file).name.split("-")[1]: (p.key, p.reason) for p in stored.problems}
    assert set(told) == {"3", "nan", "shape", "extra", "missing", "whole"}
    assert told["nan"] == (names[0], "it holds NaN or infinity")
    assert told["shape"][0] == told["missing"][0] == told["whole"][0] == names[0]
    assert "[2, 2]" in told["shape"][1]
    assert told["extra"][0] == "more.weight"
    assert "cut off" in told["3"][1]


def test_a_round_without_its_broadcast_is_a_problem_and_others_go_on(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(2, network.state_dict())
    for number in (1, 2):
        record.update(number, "c", trained(network, *photos(1))[0], kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert [c.seen.round for c in observations(stored)] == [2]
    assert "no broadcast was recorded in round 1" in str(stored.problems[0])


def test_a_head_that_nobody_sends_is_no_fault(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, network.state_dict())
    for client in range(2):
        after = trained(network, *photos(1, seed=client))[0]
        shared = {n: v for n, v in after.items() if not n.startswith("head.")}
        record.update(1, client, shared, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    for capture in observations(stored):
        assert not [n for n in update_of(capture).tensors if n.startswith("head.")]
    assert not stored.problems


def test_one_update_is_held_at_a_time(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, network.state_dict())
    for client in range(3):
        record.update(1, client, trained(network, *photos(1, seed=client))[0], kind="weights")
    seen = observations(StoredCapture(tmp_path / "c"))
    earlier: list[weakref.ref[Tensor]] = []
    for capture in seen:
        gc.collect()
        assert not [ref for ref in earlier if ref() is not None]
        shared = capture.seen.shared[0]
        assert isinstance(shared, Update)
        earlier = [weakref.ref(tensor) for tensor in shared.tensors.values()]
        del capture, shared
    assert earlier


ran: list[str] = []


def planted(*, path: str = "") -> nn.Module:
    """What a hostile capture might name: some function of some module."""
    ran.append(path)
    return mlp()


def test_code_that_only_the_capture_names_is_not_run(tmp_path: Path) -> None:
    name = f"{__name__}:planted"
    record = fedaudit.recording(tmp_path / "c", model=name, arguments={"path": "evil"})
    network = mlp()
    record.broadcast(1, network.state_dict())
    record.update(1, "c", trained(network, *photos(1))[0], kind="weights")
    with pytest.raises(UsageError, match="run code that a file chose"):
        list(observations(StoredCapture(tmp_path / "c")))
    assert not ran
    (capture,) = observations(
        StoredCapture(tmp_path / "c"),
        model=ModelSpec("mlp", {"classes": 5, "image_size": 8, "hidden": 32}),
    )
    assert capture.seen.model.factory == "mlp"
    assert not ran
    (capture,) = observations(StoredCapture(tmp_path / "c"), allow_code=True)
    build(capture.seen.model)
    assert ran == ["evil"]  # so the name was one that could have been run


def test_images_that_were_normalized_outside_the_model_come_back_in_0_1(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    images, labels = photos(1)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    shape = (1, 3, 1, 1)
    inside = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    after, _ = trained(network, inside, labels)
    record = fedaudit.recording(
        tmp_path / "c",
        model="mlp",
        arguments={"hidden": 32},
        classes=5,
        image_shape=SHAPE,
        lr=LR,
        local_steps=1,
        batch_size=1,
        mean=mean,
        std=std,
    )
    record.broadcast(1, before)
    record.update(1, "c", after, kind="weights")
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    rebuilt = build(capture.seen.model, capture.seen.before)
    assert torch.allclose(rebuilt(images), network(inside), atol=1e-5)
    _, gradient = trained(rebuilt, images, labels)
    assert torch.allclose(flat(update_of(capture).tensors), -LR * flat(gradient), atol=1e-6)


def test_rounds_and_clients_can_be_chosen(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    for number in (1, 2, 3):
        record.broadcast(number, network.state_dict())
        for client in range(3):
            after = trained(network, *photos(1, seed=10 * number + client))[0]
            record.update(number, client, after, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    chosen = observations(stored, rounds=[3, 1], clients=["2"])
    assert [(c.seen.round, c.seen.client) for c in chosen] == [(1, "2"), (3, "2")]


def test_protections_are_told_as_they_are_stated(tmp_path: Path) -> None:
    network = mlp()
    after = trained(network, *photos(1))[0]
    claim = DpClaim(clip=1.0, noise=0.5, unit="example")
    for name, protections, dp in (("none", (), None), ("dp", None, claim)):
        record = fedaudit.recording(
            tmp_path / name, model="mlp", arguments={"hidden": 32}, classes=5, image_shape=SHAPE,
            protections=protections, dp=dp,
        )  # fmt: skip
        record.broadcast(1, network.state_dict())
        record.update(1, "c", after, kind="weights")
    (undefended,) = observations(StoredCapture(tmp_path / "none"))
    assert undefended.seen.defense == ()
    (defended,) = observations(StoredCapture(tmp_path / "dp"))
    assert defended.seen.defense is not None
    assert defended.seen.defense[0].name == "dpsgd"
    assert defended.seen.defense[0].settings == {"noise_multiplier": 0.5, "max_grad_norm": 1.0}


FULL = Facts(lr=0.1, local_steps=2, batch_size=4, momentum=0.9, optimizer="SGD", weight_decay=0.0)


@pytest.mark.parametrize(
    ("facts", "examples", "settings", "images"),
    [
        (FULL, 40, LocalTraining(0.1, 2, 4, 0.9), 8),  # two steps of four
        (FULL, 5, LocalTraining(0.1, 2, 4, 0.9), 5),  # it has no more than five
        (Facts(lr=0.1, local_epochs=3, batch_size=4), 10, LocalTraining(0.1, 9, 4), 10),
        (Facts(local_steps=1, batch_size=4), None, None, 4),  # the learning rate is not known
        (Facts(lr=0.1, optimizer="lion", local_steps=1, batch_size=4), 4, None, 4),
        (Facts(), None, None, None),
    ],
)
def test_local_training_is_known_as_far_as_it_is_stated(
    facts: Facts, examples: int | None, settings: LocalTraining | None, images: int | None
) -> None:
    message = Message(what="update", round=1, client="c", kind="weights", examples=examples)
    found = local_training(facts, message)
    assert (found.settings, found.images) == (settings, images)
    assert bool(found.missing) == (settings is None or images is None)


def test_the_mode_of_batch_norm_counts_where_the_rest_is_not_known(tmp_path: Path) -> None:
    """What spans say needs no learning rate, but the mode in which the network trained."""
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    modes: tuple[Literal["train", "eval"] | None, ...] = ("eval", "train", None)
    for stated in modes:
        record = fedaudit.recording(
            tmp_path / str(stated),
            model="convnet",
            arguments={"width": 4},
            classes=5,
            batch_norm=stated,
        )
        record.broadcast(1, network.state_dict())
        moved = {n: p + 0.1 for n, p in network.named_parameters()}
        record.update(1, "c", moved, kind="weights", examples=2)
        stored = StoredCapture(tmp_path / str(stated))
        (capture,) = observations(stored)
        assert capture.seen.training is None  # no learning rate, no steps
        mode = capture.seen.mode
        assert (mode.batch_norm if mode else None) == stated
        found = local_training(
            stored.facts, next(m for m in stored.messages(1) if m.message.client).message
        )
        assert ("batch_norm = train" in found.assumed) == (stated is None)


def test_augmentation_in_words_is_told_to_the_attack(tmp_path: Path) -> None:
    """Steps are not followed by photos that no step saw, and the result says what it shows."""
    images, labels = photos(2)
    network = mlp()
    weights, _ = trained(network, images, labels)
    kinds_of: dict[str | None, tuple[str, ...]] = {
        None: (),
        "": (),
        "random horizontal flips, color jitter": ("flip", "jitter"),
        "AugMix": ("flip", "crop", "jitter"),
    }
    for words, kinds in kinds_of.items():
        record = record_mlp(tmp_path / f"of {words}", augmentation=words)
        record.broadcast(1, network.state_dict())
        record.update(1, "c", weights, kind="weights", examples=2)
        stored = StoredCapture(tmp_path / f"of {words}")
        message = next(m for m in stored.messages(1) if m.message.client).message
        found = local_training(stored.facts, message)
        assert ("no augmentation" in found.assumed) == (words is None)
        assert ("augmentation = flip, crop, jitter" in found.assumed) == (words == "AugMix")
        (capture,) = observations(stored)
        assert capture.seen.training is not None
        assert capture.seen.training.augmentation == kinds
        rebuilt = create("attacks", "inverting_gradients", {"steps": 2, "polish": 0})(
            capture.seen, generator=torch.Generator().manual_seed(0)
        )
        assert any("what the network saw" in part for part in rebuilt.unused) == bool(kinds)


def test_buffers_alone_make_no_shared_buffers_of_a_gradient(tmp_path: Path) -> None:
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    record = fedaudit.recording(tmp_path / "c", model="convnet", arguments={"width": 4}, classes=5)
    record.broadcast(1, network.state_dict())
    gradient = {n: torch.ones_like(p) for n, p in network.named_parameters()}
    record.update(1, "c", gradient, kind="gradient", examples=2)
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    assert not [s for s in capture.seen.shared if isinstance(s, Buffers)]
    assert capture.seen.training is not None
    assert (capture.seen.training.steps, capture.seen.training.batch_size) == (1, 2)


@pytest.mark.parametrize("facts", [{"classes": 10**8}, {"arguments": {"hidden": 10**9}}])
def test_a_network_larger_than_the_broadcast_is_not_built(tmp_path: Path, facts: Keywords) -> None:
    network = mlp()
    record = fedaudit.recording(tmp_path / "c", **facts)
    record.add_facts(Facts(model="mlp"))
    record.broadcast(1, network.state_dict())
    record.update(1, "c", trained(network, *photos(1))[0], kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert "correct" in str(stored.problems[0])


def test_a_broadcast_with_nan_is_named(tmp_path: Path) -> None:
    network = mlp()
    before = {n: v * float("nan") for n, v in network.state_dict().items()}
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    record.update(1, "c", network.state_dict(), kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert stored.problems[0].file.endswith("broadcast.safetensors")
    assert stored.problems[0].key == next(iter(before))

"""Instance norm that keeps running statistics: attacks normalize as the client's training did."""

import torch
import torch.nn.functional as F
from torch import nn

import fedaudit
from fedaudit.core.observation import LocalTraining
from fedaudit.models.batch_norm import replay_mode

SHAPE = (3, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), norm, nn.Sigmoid(), nn.Flatten(), nn.Linear(72, 5))


def test_it_normalizes_as_the_client_trained_and_nothing_moves() -> None:
    images = torch.rand(2, *SHAPE)
    for mode in ("train", "eval"):
        model, own = network(), network().train(mode == "train")
        replay_mode(model, LocalTraining(batch_norm="train" if mode == "train" else "eval"))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            torch.testing.assert_close(model(images), own(images))
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_the_true_photo_explains_its_update() -> None:
    """Two steps are replayed, too; by running statistics the layers' inputs would be others."""
    model, photo, label = network(), torch.rand(1, *SHAPE), torch.tensor([2])
    client = network()
    optimizer = torch.optim.SGD(client.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(client(photo), label).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = dict(client.named_parameters())
    rebuilt = fedaudit.attack(
        model,
        {name: after[name].detach() - p.detach() for name, p in model.named_parameters()},
        "inverting_gradients",
        image_shape=SHAPE,
        kind="delta",
        training=LocalTraining(lr=0.1, steps=2),
        settings={"steps": 60, "polish": 10, "local_steps": "replay"},
    )
    assert rebuilt.labels.tolist() == [2]
    assert rebuilt.objective is not None
    assert rebuilt.objective < 1e-3

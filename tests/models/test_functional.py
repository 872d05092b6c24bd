"""Networks called with other parameters, which keep their own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

import fedaudit
from fedaudit.attacks import inverting_gradients
from fedaudit.models.functional import functional_call


class Shared(nn.Module):
    """One layer under two names, and a matrix that two layers have in common."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        common = nn.Linear(12, 12)
        self.one, self.two = nn.Sequential(common, nn.Tanh()), nn.Sequential(common, nn.Tanh())
        self.tied, self.head = nn.Linear(12, 12), nn.Linear(12, 3)
        self.tied.weight = common.weight

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[N, 3]`."""
        scores: Tensor = self.head(self.tied(self.two(self.one(x.flatten(1)))))
        return scores


def other_numbers(network: nn.Module) -> dict[str, Tensor]:
    """Random parameters in double precision."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in network.named_parameters()
    }


def test_a_layer_of_two_names_keeps_its_numbers() -> None:
    network, given = Shared(), other_numbers(Shared())
    before = {name: p.clone() for name, p in network.named_parameters()}
    image = torch.rand(2, 3, 2, 2).double()
    scores = functional_call(network, given, (image,))
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]), name
    changed = Shared().double()
    changed.load_state_dict(given, strict=False)
    assert torch.allclose(scores, changed(image))


@pytest.mark.parametrize("name", ["one.0.weight", "two.0.weight", "tied.weight"])
def test_any_name_of_a_tensor_stands_for_all(name: str) -> None:
    network, value = Shared(), torch.eye(12)
    expected = Shared()
    expected.one[0].weight.data = value
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(functional_call(network, {name: value}, (image,)), expected(image))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises((KeyError, RuntimeError, AttributeError)):
        functional_call(Shared(), {"three.weight": torch.eye(12)}, (torch.rand(1, 3, 2, 2),))


def test_it_is_differentiated_image_by_image() -> None:
    network = Shared()
    own = {name: p.detach() for name, p in network.named_parameters()}
    images = torch.rand(4, 1, 3, 2, 2)

    def loss(state: dict[str, Tensor], image: Tensor) -> Tensor:
        total: Tensor = functional_call(network, state, (image,)).square().sum()
        return total

    each = vmap(grad(loss), in_dims=(None, 0))(own, images)
    network(images.flatten(0, 1)).square().sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None
        assert torch.allclose(each[name].sum(0), p.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("attack", ["subspace_matching", inverting_gradients(steps=2)])
def test_a_network_whose_layer_has_two_names_is_attacked(attack: Any) -> None:
    network, image = Shared().eval(), torch.rand(1, 3, 2, 2)
    loss = nn.functional.cross_entropy(network(image), torch.tensor([1]))
    named = dict(network.named_parameters())
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    before = {name: p.clone() for name, p in named.items()}
    fedaudit.attack(network, update, attack, image_shape=(3, 2, 2))
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())

"""Networks as ports from other frameworks write them; `benchmarks/stock_clients.py` has them."""

from torch import Tensor, nn


class Product(nn.Module):
    """A linear layer by a matrix `[in, out]`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.matrix = nn.Parameter(layer.weight.detach().T.clone())
        self.offset = nn.Parameter(layer.bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Numbers `[…, out]` of `[…, in]`."""
        return inputs @ self.matrix + self.offset


def ported(network: nn.Module) -> nn.Module:
    """The network, whose linear layers are all products from here on."""
    for name in [name for name, m in network.named_modules() if type(m) is nn.Linear]:
        owner, _, own = name.rpartition(".")
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(network.get_submodule(owner), own, Product(layer))
    return network

"""Seeds of torch's global generator."""

import pytest
import torch

from fedaudit.core.seeds import seed_torch


@pytest.mark.parametrize("seed", [0, 2**62, -3])
def test_torch_draws_the_same_as_after_its_own_seeding(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5)
        torch.manual_seed(1)
        seed_torch(seed)
        assert torch.equal(torch.rand(5), expected)

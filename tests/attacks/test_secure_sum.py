"""Rows of single owners out of a secure sum of what FedGC's clients train."""

from collections.abc import Callable

import pytest
import torch

from fedaudit.attacks.templates.read_templates import single_owner_rows
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import ClassEmbeddings
from fedaudit.federation.simulation import Simulation


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (50.0, 13.0, 7.0)])
def test_trained_rows_come_out_of_the_sum(
    weights: tuple[float, ...], federate: Callable[..., Simulation]
) -> None:
    simulation = federate(
        network="small_cnn", method="fedgc", clients=3, local_steps=2, batch_size=4
    )
    state, _ = simulation.train(simulation.fresh(), range(1, 2))
    before = state.server["head.weight"]
    total, truth, owners = torch.zeros_like(before), before.clone(), [-1] * len(before)
    for client, weight in enumerate(weights):
        photos = simulation.split.train[simulation.split.clients[client][0]]
        returned = simulation.step(
            state, client, photos, LocalTraining(lr=0.1, steps=2), torch.Generator()
        )
        sent = next(s for s in returned.shared if isinstance(s, ClassEmbeddings))
        whole = before.clone()
        whole[list(sent.owners)] = sent.rows
        total += weight * whole
        truth[list(sent.owners)] = sent.rows
        for row in sent.owners:
            owners[row] = client
    assert not torch.allclose(truth, before, atol=1e-3)
    found = single_owner_rows(total, before, owners, weights)
    assert float((found - truth).abs().max()) < 1e-5
    # A wrong owner, or what the server had not sent, does not give the rows.
    if len(set(weights)) > 1:
        wrong = single_owner_rows(total, before, [(k + 1) % 3 for k in owners], weights)
        assert float((wrong - truth).abs().max()) > 1e-3
    other = single_owner_rows(total, torch.zeros_like(before), owners, weights)
    assert float((other - truth).abs().max()) > 1e-2


def test_a_row_that_nobody_owns() -> None:
    with pytest.raises(AttackError, match="2 weights"):
        single_owner_rows(torch.zeros(1, 2), torch.zeros(1, 2), [2], (1.0, 1.0))

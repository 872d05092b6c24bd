"""Faces of people, not of photos, meet the portrait of whom their label names."""

from collections.abc import Callable

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.scoring.score import score

Intercept = Callable[..., Capture]


@pytest.mark.parametrize("method", ["fedavg", "fedgc"])
@pytest.mark.parametrize("target", [0, 1])
def test_a_label_is_a_class_of_the_clients_head(
    method: str, target: int, intercept: Intercept
) -> None:
    """A head that all share counts everybody; one that is the client's own counts its people."""
    captured = intercept(method=method, network="small_cnn", target=target)
    secret, model = captured.secret, captured.seen.model
    assert secret is not None
    assert secret.portraits is not None
    shared = model.arguments["classes"] > len(secret.portrayed)
    assert shared == (method == "fedavg")
    assert secret.labels[0] == secret.portrayed_as[secret.portrayed.index(secret.people[0])]
    classes = torch.tensor(secret.portrayed_as)
    chosen = [4, 0, 2]
    drawn = Reconstruction(secret.portraits[chosen], classes[chosen], of="people")
    scores, _, _ = score(secret, drawn, gallery=None, embed=None)
    assert [s.person for s in scores] == [secret.portrayed[k] for k in chosen]
    assert [s.metrics["mse"] for s in scores] == [0, 0, 0]
    # By the label of another, the same faces are compared with that person.
    wrong = Reconstruction(secret.portraits[chosen], classes[[0, 2, 4]], of="people")
    scores, _, _ = score(secret, wrong, gallery=None, embed=None)
    assert all(s.metrics["mse"] > 0.001 for s in scores)
    # Whoever is named by no class of the client is whom the face looks like.
    foreign = torch.where(torch.arange(3) == 1, 10_000, classes[chosen])
    scores, _, _ = score(
        secret,
        Reconstruction(secret.portraits[chosen], foreign, of="people"),
        gallery=None,
        embed=None,
    )
    assert scores[1].metrics["mse"] == 0

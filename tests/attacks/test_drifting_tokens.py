"""A batch of photos out of a vision transformer's update of several steps, or of rounding."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence import token_separation
from fedaudit.attacks.evidence.feed_forward import first_feed_forward
from fedaudit.attacks.evidence.token_criteria import Upstream
from fedaudit.attacks.evidence.token_placing import PlacedTokens, photos_by_tokens
from fedaudit.attacks.search import closed_form
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.training import LocalTraining

sys.path.insert(0, str(Path(__file__).parent))
from transformer_batches import drawn, farthest, reading, tokens_of, transformer


def delta(model: nn.Module, photos: Tensor, *, lr: float, steps: int) -> dict[str, Tensor]:
    """What a client shares after steps of SGD on all photos."""
    client = copy.deepcopy(model)
    optimizer = torch.optim.SGD(client.parameters(), lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(client(photos), torch.arange(len(photos))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    before = dict(model.named_parameters())
    return {name: (p - before[name]).detach() for name, p in client.named_parameters()}


def after_two_steps() -> tuple[Upstream, Tensor]:
    """The search for two photos' tokens, and the true ones, at the first step, `[20, R]`."""
    model, photos = transformer(), drawn(2)
    update = delta(model, photos, lr=0.05, steps=2)
    layers = first_feed_forward(reading(model, photos, update))
    assert layers is not None
    truth = tokens_of(model, layers, photos)
    whole = token_separation._whole_problem(layers, len(truth))
    assert whole is not None
    return whole, torch.linalg.lstsq(whole.tokens.basis.T, truth.T).solution.T


def test_tokens_of_the_first_step_are_in_the_spans_of_all() -> None:
    """Which have more directions than there are tokens, as weights change."""
    whole, truth = after_two_steps()
    assert len(whole.sizes) > len(truth)
    assert whole.noise == token_separation.DRIFTED
    assert float(whole.tokens.outside(truth)[1].max()) < token_separation.FOUND * whole.noise


def test_the_shortest_functional_sees_one_token() -> None:
    whole, truth = after_two_steps()
    seen = torch.stack([whole(token) for token in truth]) @ truth.T
    assert float((seen - torch.eye(len(truth))).abs().max()) < 0.05


def test_a_mixture_after_several_steps_is_searched_for_once_more() -> None:
    """Where all others' functionals are 0."""
    whole, truth = after_two_steps()
    found = truth.clone()
    found[3] = 0.8 * truth[3] + 0.2 * truth[14]
    functionals = torch.stack([whole(token) for token in found])
    mended, _ = token_separation._apart(whole, found, functionals, torch.Generator().manual_seed(0))
    before, after = (torch.cdist(one, truth).min(0).values[3] for one in (found, mended))
    assert float(after) < 0.5 * float(before)


@pytest.mark.parametrize(("lr", "steps"), [(0.05, 2), (0.01, 2), (0.05, 3), (1e-3, 1)])
def test_a_batch_comes_out_after_several_steps_and_of_rounded_weights(
    lr: float, steps: int
) -> None:
    model, photos = transformer(), drawn(2)
    update = delta(model, photos, lr=lr, steps=steps)
    assert farthest(photos_by_tokens(reading(model, photos, update)), photos) < 0.12


def test_more_is_allowed_where_weights_were_rounded() -> None:
    """The smaller the step, the more of a gradient is lost in them."""
    model, photos = transformer(), drawn(2)
    noises = []
    for lr in (1.0, 3e-3, 1e-3):
        layers = first_feed_forward(reading(model, photos, delta(model, photos, lr=lr, steps=1)))
        assert layers is not None
        whole = token_separation._whole_problem(layers, 20)
        assert whole is not None
        assert len(whole.sizes) == 20
        noises.append(whole.noise)
    assert noises[0] == 1
    assert noises[0] < noises[1] < noises[2]


def test_photos_that_explain_their_tokens_need_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """After large steps true photos are far from what later layers' inputs span."""
    model, photos = transformer(), drawn(2)
    training = LocalTraining(lr=0.05, steps=2, batch_size=2, momentum=0.9, batch_norm="eval")
    update = delta(model, photos, lr=0.05, steps=2)

    def attacked() -> fedaudit.Reconstruction:
        return fedaudit.attack(
            model, update, kind="delta", training=training, images=2,
            image_shape=(3, *photos.shape[2:]), settings={"steps": 2},
        )  # fmt: skip

    def placed(left: float, *, tells_places: bool) -> None:
        told = PlacedTokens(photos, left, tells_places)
        monkeypatch.setattr(closed_form, "photos_by_tokens", lambda *_: told)

    monkeypatch.setattr(SpanMatching, "bears_out", lambda *_: False)
    placed(1e-6, tells_places=True)
    assert attacked().searched_by == "closed form"
    for left in (2 * closed_form.PLACED, torch.nan):
        placed(left, tells_places=True)
        assert attacked().searched_by != "closed form"
    placed(1e-6, tells_places=False)
    assert attacked().searched_by != "closed form"

"""A batch of photos from a vision transformer's update: its tokens, put in their places.

`token_separation` gives the tokens of all photos, in any order, as they enter the first
feed-forward part. Before its layer norm, token p of a photo is W x_p + b + c_p: x_p its patch,
which lies in the span that the patch layer's gradient shows, c_p its place's embedding and what the
first attention adds, which is nearly the same for all photos. So, at the right place, there are a
scale σ and a mean μ for which

    σ z + μ − b − c_p = W x_p,   x_p in that span,

which leaves many equations a token: places follow by assignment (Kuhn, 1955). Which tokens are of
the same photo, the gradients tell that arrive at them, and then the first attention itself. Each
patch is a small linear system; L-BFGS on the tokens ends what the unknown attention leaves. Then
patches move to the photo whose patches they continue (`patch_borders`), and all tokens are placed
once more, in the attention of photos that are nearly right now, until none moves; all of it from
other drawn images where the tokens are not explained.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedaudit.attacks.evidence.feed_forward import FeedForward, first_feed_forward
from fedaudit.attacks.evidence.layer_inputs import deterministic
from fedaudit.attacks.evidence.patch_borders import by_borders
from fedaudit.attacks.evidence.position_embedding import (
    channel_scale,
    patch_layers,
    places,
)
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.evidence.token_separation import separate_tokens

DRAWN = 16
"""Drawn images that show what the first attention adds. These four were set once, on one batch of
p01 and p02 of OpenPeople through a fresh ViT-S, whose tokens all found their places; no other
values were tried."""
CONTRAST = 0.25
"""Their patches' deviation, in units of what lies between black and white."""
CAUTION = 4.0
"""How much more a photo's attention varies than that of drawn images, as variance."""
ROUNDS = 3
"""Rounds of photos by tokens, and tokens by photos."""
PLACINGS = 4
"""Times that all tokens are placed once more, at most. Of four photos of p09 and p10 of OpenPeople,
on whom it was tried, 17 of 196 patches were wrong before and one after it through timm's ViT-S,
fresh; 14 and 7 through ours, pre-trained for 20 steps (counted by a script that was not kept; with
--set attacks.evidence.token_placing.PLACINGS=0 benchmarks/deployed_networks.py goes without)."""
STARTS, RIGHT = 4, 3e-6
"""Times that all of it is done from other drawn images, at most, and the share of the tokens, as
variance, that photos in their places leave: by seven batches of p01, p02, p05 and p06, 2e-6 and
less where every patch has its place, 8e-6 and more where one has not. Of two batches that were
tried from four draws each, SSIM was 1.00 or 0.99, and 0.78 to 0.91 (tokens of which were wrong)."""
TIE = 1e-9
"""By which assignments differ that cost the same but for rounding."""
ITERATIONS = 300
"""Of L-BFGS, at most."""


class _Heard(Exception):  # noqa: N818  # ends a forward pass; it is no error
    """The layer norm has been heard."""


@dataclass(frozen=True)
class _Front:
    """A transformer up to its first feed-forward part, in double precision.

    Attributes:
        model: The network.
        patch: Its layer of patches.
        norm: The layer norm before the feed-forward part.
        span: Orthonormal `[R, F]`: the patches of the batch are in it.
        sizes: How much of each they likely have, relatively, `[R]`.
        zero: What enters `patch` of a black image, `[1, C, H, W]`.
        one: The same of a white one.
    """

    model: nn.Module
    patch: nn.Conv2d
    norm: nn.LayerNorm
    span: Tensor
    sizes: Tensor
    zero: Tensor
    one: Tensor

    def single(self) -> "_Front":
        """A copy in single precision."""
        span, sizes, zero, one = (x.float() for x in (self.span, self.sizes, self.zero, self.one))
        model = copy.deepcopy(self.model)
        own = dict(zip(self.model.modules(), model.float().modules(), strict=True))
        patch, norm = own[self.patch], own[self.norm]
        assert isinstance(patch, nn.Conv2d)
        assert isinstance(norm, nn.LayerNorm)
        return _Front(model, patch, norm, span, sizes, zero, one)

    def images(self, patches: Tensor) -> Tensor:
        """The images `[n, C, H, W]` of patches `[n, P, F]`."""
        size = tuple(self.zero.shape[2:])
        inputs = F.fold(patches.mT, size, self.patch.kernel_size, stride=self.patch.stride)
        images: Tensor = (inputs - self.zero) / (self.one - self.zero)
        return images

    @property
    def places(self) -> int:
        """P, how many patches an image has."""
        return places(self.zero.shape[2:], self.patch)

    def run(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[n, T, D]` before the layer norm, of patches `[n, P, F]`, and their contexts."""
        heard: dict[str, Tensor] = {}

        def embed(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            heard["embedded"] = output.flatten(2).mT

        def end(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            heard["before"] = args[0]
            raise _Heard

        hooks = self.patch.register_forward_hook(embed), self.norm.register_forward_pre_hook(end)
        try:
            with deterministic(self.model), suppress(_Heard):
                self.model(self.images(patches))
        finally:
            for hook in hooks:
                hook.remove()
        before, embedded = heard["before"], heard["embedded"]
        extra = before.shape[1] - embedded.shape[1]
        contexts = torch.cat([before[:, :extra], before[:, extra:] - embedded], 1)
        return before, contexts


@dataclass(frozen=True)
class _Fit:
    """How well tokens fit places: σ z + μ − W x = c, weighed by what is not known of c.

    Attributes:
        front: The network.
        extra: Tokens before the patches (a class token), which have no patch.
        covariance: Of what is not known of a context, `[D, D]`.
    """

    front: _Front
    extra: int
    covariance: Tensor

    def _whiten(self, rows: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(self.covariance)
        whitened: Tensor = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        return whitened.T

    def _open(self) -> Tensor:
        """What a mean and a patch leave open, whitened, `[1 + R, D]`."""
        weight = self.front.patch.weight.detach().flatten(1)
        ones = weight.new_ones(1, len(weight))
        return self._whiten(torch.cat([ones, -self.front.span @ weight.T]))

    def left(self, tokens: Tensor, contexts: Tensor, *, patched: bool) -> Tensor:
        """Mean square of what no patch explains, `[n, m]`, of tokens `[n, D]` in contexts `[m, D]`.

        `patched`: the tokens have a patch; else only a mean.
        """
        left_open = self._open()[: None if patched else 1]
        basis = torch.linalg.qr(left_open.T).Q
        z, c = self._whiten(tokens), self._whiten(contexts)
        z, c = z - z @ basis @ basis.T, c - c @ basis @ basis.T
        products = z @ c.T
        explained = products.clamp_min(0).square() / z.square().sum(1)[:, None]
        left: Tensor = (c.square().sum(1) - explained) / (c.shape[1] - basis.shape[1])
        return left

    def solve(self, tokens: Tensor, slots: Tensor, contexts: Tensor) -> Tensor:
        """The patches `[N, P, F]` of the tokens in `slots`, `[N, T]`, in contexts `[N, T, D]`."""
        patches = self._solve(tokens[slots].flatten(0, 1), contexts.flatten(0, 1))
        return patches.view(*slots.shape, -1)[:, self.extra :]

    def _solve(self, tokens: Tensor, contexts: Tensor) -> Tensor:
        left_open, z, c = self._open(), self._whiten(tokens), self._whiten(contexts)
        basis = torch.linalg.qr(left_open.T).Q
        outside_z, outside_c = z - z @ basis @ basis.T, c - c @ basis @ basis.T
        scale = (outside_z * outside_c).sum(1) / outside_z.square().sum(1)
        rest = c - scale[:, None] * z
        solution = torch.linalg.lstsq(left_open.T, rest.T).solution
        patches: Tensor = solution[1:].T @ self.front.span
        return patches


def photos_by_tokens(reading: Reading, seed: int = 0) -> Tensor | None:
    """The photos `[N, C, H, W]` behind a transformer's update; None where this does not apply.

    It applies to transformers with a layer of patches before which nothing but a channel's scale
    and offset is applied, where all tokens of the batch are fewer than a token has numbers. That
    the photos explain the update is for the caller to see: tokens may come out in wrong places.

    Args:
        reading: The network, with its mean gradient.
        seed: Of all randomness.
    """
    named = next(patch_layers(reading), None)
    layers = None if named is None or reading.private else first_feed_forward(reading)
    if layers is None or named is None:
        return None
    name, patch = named
    front = _front_of(reading, name, patch, layers)
    if front is None or layers.inner.weight.shape[1] != patch.out_channels:
        return None
    tokens = separate_tokens(layers, reading.count, seed)
    if tokens is None:
        return None
    tokens, best = tokens.cpu(), (float("inf"), tokens)
    for start in range(seed, seed + STARTS):
        fit, slots, rough = _place(front, layers, tokens, reading.count, start)
        best = min(best, _place_anew(fit, tokens, slots, rough, start), key=lambda one: one[0])
        if best[0] < RIGHT:
            break
    return front.images(best[1]).clamp(0, 1).to(reading.like)


def _front_of(reading: Reading, name: str, patch: nn.Conv2d, layers: FeedForward) -> _Front | None:
    scale = channel_scale(reading, patch)
    rank = reading.count * places(reading.shape[1:], patch)
    matrix = reading.target[name].detach().flatten(1).double().cpu()
    if scale is None or rank + 2 >= min(matrix.shape):
        return None
    model = copy.deepcopy(reading.model).double().cpu().requires_grad_(False)
    modules = dict(zip(reading.model.modules(), model.modules(), strict=True))
    own_patch, own_norm = modules[patch], modules[layers.norm]
    assert isinstance(own_patch, nn.Conv2d)
    assert isinstance(own_norm, nn.LayerNorm)
    _, sizes, rows = torch.linalg.svd(matrix, full_matrices=False)
    sizes = (sizes[:rank] / sizes[0]).sqrt()
    zero, one = (value.double().cpu() for value in scale)
    return _Front(model, own_patch, own_norm, rows[:rank], sizes, zero, one)


def _place(
    front: _Front, layers: FeedForward, tokens: Tensor, count: int, seed: int
) -> tuple[_Fit, Tensor, Tensor]:
    """How tokens fit, which is where, `[N, T]`, and the patches `[N, P, F]` that follow."""
    width = tokens.shape[1]
    drawn = _drawn_contexts(front, layers.tokens, seed)
    usual = drawn.mean(0)
    apart = (drawn - usual).reshape(-1, width)
    covariance = CAUTION * apart.T @ apart / len(apart)
    covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(width).double()
    extra = layers.tokens - front.places
    fit = _Fit(front, extra, covariance)
    misfit = fit.left(tokens, usual, patched=True)
    misfit[:, :extra] = fit.left(tokens, usual[:extra], patched=False)
    chosen = _assign(misfit.clamp_min(1e-12).log().repeat(1, count))
    place = chosen % layers.tokens
    members = [torch.nonzero(place == p)[:, 0] for p in range(layers.tokens)]
    photo = _cluster(_upstream(layers, tokens), members, count)
    contexts = usual.expand(count, -1, -1)
    for _ in range(ROUNDS):
        slots = torch.empty(count, layers.tokens, dtype=torch.int64)
        slots[photo, place] = torch.arange(len(tokens))
        patches = fit.solve(tokens, slots, contexts)
        with torch.no_grad():
            contexts = front.run(patches)[1]
        for p, rows in enumerate(members):
            photo[rows] = _assign(fit.left(tokens[rows], contexts[:, p], patched=p >= extra))
    return fit, slots, patches


def _place_anew(
    fit: _Fit, tokens: Tensor, slots: Tensor, patches: Tensor, seed: int
) -> tuple[float, Tensor]:
    """The patches `[N, P, F]`, after all tokens are placed once more, until none moves.

    Those that leave the least of the tokens, and how much that is.
    """
    count, places = slots.shape
    left, patches = _polish(fit.front, patches, tokens[slots])
    best = left, patches
    for _ in range(PLACINGS if count > 1 else 0):
        height, width = fit.front.patch.kernel_size
        images = fit.front.images(patches).clamp(0, 1)
        moved = by_borders(images, (height, width), seed)
        with torch.no_grad():
            contexts = fit.front.run(patches.gather(0, moved[..., None].expand_as(patches)))[1]
        misfit = fit.left(tokens, contexts.flatten(0, 1), patched=True)
        extra = (torch.arange(count)[:, None] * places + torch.arange(fit.extra)).flatten()
        misfit[:, extra] = fit.left(tokens, contexts[:, : fit.extra].flatten(0, 1), patched=False)
        found = torch.empty(count * places, dtype=torch.int64)
        found[_assign(misfit.clamp_min(1e-12).log())] = torch.arange(len(tokens))
        before, slots = tokens[slots], found.view_as(slots)
        if torch.equal(tokens[slots], before):
            break
        left, patches = _polish(fit.front, fit.solve(tokens, slots, contexts), tokens[slots])
        best = min(best, (left, patches), key=lambda one: one[0])
    return best


def _drawn_contexts(front: _Front, tokens: int, seed: int) -> Tensor:
    """What is added to the patches of images drawn from the span of the batch's, `[n, T, D]`."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(DRAWN, front.places, len(front.span), generator=generator).double()
    patches = (draws * front.sizes) @ front.span
    contrast = CONTRAST * float((front.one - front.zero).abs().mean())
    with torch.no_grad():
        contexts = front.run(patches * contrast / patches.std(-1, keepdim=True))[1]
    assert contexts.shape[1] == tokens
    return contexts


def _upstream(layers: FeedForward, tokens: Tensor) -> Tensor:
    """Directions of the gradients `[n, D]` that arrive at the feed-forward part's output."""
    weight = layers.inner.weight.detach().double().cpu()
    bias = 0 if layers.inner.bias is None else layers.inner.bias.detach().double().cpu()
    hidden = layers.activation(tokens @ weight.T + bias)
    outer = layers.gradients[1].double().cpu()
    return F.normalize(torch.linalg.lstsq(hidden.T, outer.T).solution, dim=1)


def _assign(cost: Tensor) -> Tensor:
    """The column of each row, each column once, at least cost.

    Tokens that stand for two have rows that differ by rounding, which another run does otherwise:
    of these the first goes to the last column.
    """
    rows, columns = (torch.arange(n).to(cost) for n in cost.shape)
    chosen: Tensor = torch.as_tensor(
        linear_sum_assignment((cost + TIE * rows[:, None] * columns).numpy())[1]
    )
    return chosen


def _cluster(features: Tensor, members: list[Tensor], count: int) -> Tensor:
    """The photo of each token, one token of each place a photo: k-means from several places."""
    best, least = torch.zeros(len(features), dtype=torch.int64), float("inf")
    for first in range(0, len(members), max(1, len(members) // 8)):
        centers, photo = features[members[first]], torch.zeros_like(best)
        for _ in range(20):
            cost = 0.0
            for rows in members:
                distances = torch.cdist(features[rows], centers).square()
                photo[rows] = _assign(distances)
                cost += float(distances[range(count), photo[rows]].sum())
            centers = torch.stack([features[photo == i].mean(0) for i in range(count)])
        if cost < least:
            best, least = photo.clone(), cost
    return best


def _polish(front: _Front, patches: Tensor, tokens: Tensor) -> tuple[float, Tensor]:
    """The patches `[N, P, F]` in the span that give the tokens `[N, T, D]`, from near them.

    And the share of the tokens, as variance, that these leave. In units of each token's deviation,
    by which the layer norm divides, and in single precision.
    """
    whole, front, tokens = front, front.single(), tokens.float()
    with torch.no_grad():
        units = front.run(patches.float())[0].std(-1, keepdim=True)[:, -front.places :]
    free = (patches.float() @ front.span.T / units).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free], max_iter=ITERATIONS, history_size=30, line_search_fn="strong_wolfe",
        tolerance_grad=1e-12, tolerance_change=1e-14,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        before = front.run(units * free @ front.span)[0]
        loss: Tensor = (front.norm(before) - tokens).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    left = float(closure().detach() / tokens.square().sum())
    return left, (units * free).detach().to(whole.span) @ whole.span

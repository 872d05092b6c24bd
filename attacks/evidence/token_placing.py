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

Where c_p hardly tells places (rotations, relative positions), patches follow all the same, and are
put together as a puzzle (`patch_jigsaw`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.feed_forward import FeedForward, first_feed_forward
from fedaudit.attacks.evidence.patch_borders import by_borders
from fedaudit.attacks.evidence.patch_jigsaw import by_jigsaw
from fedaudit.attacks.evidence.place_fit import PlaceFit
from fedaudit.attacks.evidence.position_embedding import patch_layers
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.evidence.token_assignment import assign, cluster, deal
from fedaudit.attacks.evidence.token_separation import separate_tokens
from fedaudit.attacks.evidence.transformer_front import Front, front_of

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
on whom it was tried, some patches were wrong before and hardly any after it, through timm's ViT-S
and ours (`benchmarks/deployed_networks.py --set attacks.evidence.token_placing.PLACINGS=0` goes
without)."""
STARTS, RIGHT = 4, 3e-6
"""Times that all of it is done from other drawn images, at most, and the share of the tokens, as
variance, that photos in their places leave: by seven batches of p01, p02, p05 and p06, 2e-6 and
less where every patch has its place, 8e-6 and more where one has not. Of two batches that were
tried from four draws each, SSIM was 1.00 or 0.99, and 0.78 to 0.91 (tokens of which were wrong)."""
ALIKE, APART = 1.0, 1e3
"""Mean square of what tells two places, in units of what is not known of a context, up to which
borders alone are asked, and borders first. At 64 px timm's ViT-S and DINOv2 with an embedding of
places have 7e4 and more, fresh; ViT-S with rotations or relative places and DINOv3 0.4 and less;
BEiT and a ViT-B with relative places 2 and 25, LayerScale drawn from 0.05 to 0.5."""
ITERATIONS = 300
"""Of L-BFGS, at most."""


@dataclass(frozen=True)
class PlacedTokens:
    """Photos whose patches are where their tokens fit best.

    Attributes:
        images: `[N, C, H, W]`.
        left: Share of the tokens of patches, as variance, that the photos leave unexplained.
        tells_places: Whether patches in other places would leave more: not where attention alone
            knows places, and may not mind them.
    """

    images: Tensor
    left: float
    tells_places: bool


def photos_by_tokens(reading: Reading, seed: int = 0) -> PlacedTokens | None:
    """The photos behind a transformer's update; None where this does not apply.

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
    front = front_of(reading, name, patch, layers)
    if front is None or layers.inner.weight.shape[1] != patch.out_channels:
        return None
    fit = _fit(front, layers, seed)
    with torch.no_grad():
        expected = front.norm(fit.usual[: fit.extra])
    tokens = separate_tokens(layers, reading.count, seed, expected=expected)
    if tokens is None:
        return None
    tokens, best = tokens.cpu(), (float("inf"), tokens)
    for start in range(seed, seed + STARTS):
        fit = _fit(front, layers, start) if start > seed else fit
        ways = (_as_puzzle,) * (fit.apart < APART) + (_as_contexts_tell,) * (fit.apart > ALIKE)
        for place in ways:
            if best[0] >= RIGHT:
                best = min(place(fit, layers, tokens, start), best, key=lambda one: one[0])
        if best[0] < RIGHT:
            break
    images = front.images(best[1]).clamp(0, 1).to(reading.like)
    return PlacedTokens(images, best[0], fit.apart > APART)


def _fit(front: Front, layers: FeedForward, seed: int) -> PlaceFit:
    """How tokens fit places, as far as drawn images tell."""
    drawn = _drawn_contexts(front, layers.tokens, seed)
    usual = drawn.mean(0)
    apart = (drawn - usual).flatten(0, 1)
    covariance = CAUTION * apart.T @ apart / len(apart)
    covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance)).double()
    return PlaceFit(front, layers.tokens - front.places, covariance, usual)


def _place(
    fit: PlaceFit, layers: FeedForward, tokens: Tensor, *, told: bool
) -> tuple[Tensor, Tensor]:
    """Which token is where, `[N, T]`, and the patches `[N, P, F]` that follow.

    Where their contexts have not `told` places, a photo's patches come in any order.
    """
    extra, number = fit.extra, layers.tokens
    count = len(tokens) // number
    misfit = fit.left(tokens, fit.usual, patched=True)
    misfit[:, :extra] = fit.left(tokens, fit.usual[:extra], patched=False)
    place = assign(misfit.clamp_min(1e-12).log().repeat(1, count)) % number
    groups = list(torch.arange(number)[:, None])
    if not told:
        groups[extra:] = [torch.arange(extra, number)]
    members = [torch.nonzero(torch.isin(place, group))[:, 0] for group in groups]
    photo = cluster(_upstream(layers, tokens), members, count)
    contexts = fit.usual.expand(count, -1, -1)
    for _ in range(ROUNDS):
        slots = torch.empty(count, number, dtype=torch.int64)
        for group, rows in zip(groups, members, strict=True):
            slots[:, group] = rows[photo[rows].argsort(stable=True)].view(count, -1)
        patches = fit.solve(tokens, slots, contexts)
        with torch.no_grad():
            contexts = fit.front.run(patches)[1]
        for group, rows in zip(groups, members, strict=True):
            likely, patched = contexts[:, group].mean(1), int(group[0]) >= extra
            photo[rows] = deal(fit.left(tokens[rows], likely, patched=patched))
    return slots, patches


def _as_contexts_tell(
    fit: PlaceFit, layers: FeedForward, tokens: Tensor, seed: int
) -> tuple[float, Tensor]:
    """The patches `[N, P, F]`, each where its token fits, and what share of the tokens these leave.

    Then all tokens are placed once more, among patches that continue each other, until none moves;
    the patches that leave the least are kept.
    """
    slots, patches = _place(fit, layers, tokens, told=True)
    left, patches = _polish(fit.front, patches, tokens[slots])
    best = left, patches
    for _ in range(PLACINGS if len(slots) > 1 else 0):
        images = fit.front.images(patches).clamp(0, 1)
        moved = by_borders(images, fit.front.patch_size, seed)
        with torch.no_grad():
            contexts = fit.front.run(patches.gather(0, moved[..., None].expand_as(patches)))[1]
        misfit = fit.left(tokens, contexts.flatten(0, 1), patched=True)
        extra = torch.arange(len(tokens)) % layers.tokens < fit.extra
        misfit[:, extra] = fit.left(tokens, contexts.flatten(0, 1)[extra], patched=False)
        found = torch.empty(len(tokens), dtype=torch.int64)
        found[assign(misfit.clamp_min(1e-12).log())] = torch.arange(len(tokens))
        before, slots = tokens[slots], found.view_as(slots)
        if torch.equal(tokens[slots], before):
            break
        left, patches = _polish(fit.front, fit.solve(tokens, slots, contexts), tokens[slots])
        best = min(best, (left, patches), key=lambda one: one[0])
    return best


def _as_puzzle(
    fit: PlaceFit, layers: FeedForward, tokens: Tensor, seed: int
) -> tuple[float, Tensor]:
    """The same where contexts tell no place, as a puzzle.

    Attention may not mind the order at all: the last patches that explain the tokens are kept.
    """
    slots, patches = _place(fit, layers, tokens, told=False)
    best = float("inf"), patches
    for _ in range(PLACINGS):
        if not patches.isfinite().all():
            break
        moved = by_jigsaw(fit.front.images(patches).clamp(0, 1), fit.front.patch_size, seed)
        before, slots = slots, slots.clone()
        slots[:, fit.extra :] = before[:, fit.extra :].flatten()[moved]
        if best[0] < RIGHT and torch.equal(slots, before):
            break
        with torch.no_grad():
            contexts = fit.front.run(patches.flatten(0, 1)[moved])[1]
        for place in range(fit.extra):
            rows = before[:, place]
            slots[deal(fit.left(tokens[rows], contexts[:, place], patched=False)), place] = rows
        left, patches = _polish(fit.front, fit.solve(tokens, slots, contexts), tokens[slots])
        if left <= max(best[0], RIGHT):
            best = left, patches
    return best


def _drawn_contexts(front: Front, tokens: int, seed: int) -> Tensor:
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


def _polish(front: Front, patches: Tensor, tokens: Tensor) -> tuple[float, Tensor]:
    """The patches `[N, P, F]` in the span that give the tokens `[N, T, D]`, from near them.

    And the share of the patches' tokens, as variance, that these leave. In units of each token's
    deviation, by which the layer norm divides, and in single precision.
    """
    whole, front, tokens = front, front.single(), tokens.float()
    with torch.no_grad():
        units = front.run(patches.float())[0].std(-1, keepdim=True)[:, -front.places :]
    free = (patches.float() @ front.span.T / units).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free], max_iter=ITERATIONS, history_size=30, line_search_fn="strong_wolfe",
        tolerance_grad=1e-12, tolerance_change=1e-14,
    )  # fmt: skip

    def missed() -> Tensor:
        result: Tensor = front.norm(front.run(units * free @ front.span)[0]) - tokens
        return result

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = missed().square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        of_patches = missed()[:, -front.places :].square().sum()
    left = float(of_patches / tokens[:, -front.places :].square().sum())
    return left, (units * free).detach().to(whole.span) @ whole.span

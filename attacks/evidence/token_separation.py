"""Every token of a batch by itself, out of the gradients of one feed-forward part.

The rows of W₁'s gradient span the tokens z_t that enter W₂ φ(W₁ z + b₁), those of W₂'s gradient
their φ(W₁ z_t + b₁). A mixture of tokens lies in the first span, but its φ(…) lies outside of the
second, as φ is not linear: single tokens are the zeros of

    ‖(1 − P) φ(W₁ z + b₁)‖²,   z in the first span, as long as a layer norm gives tokens out,

P the projection on the second span. It has as many unknowns as the batch has tokens, several times
as many equations, and hardly another minimum: Levenberg–Marquardt ends in a token from almost any
start. What is found is taken out exactly: the upstream gradient g_t of a token's output is the one
of W₂'s column space for which φ'(…) ∘ W₂ᵀ g_t = δ_t lies in the column space of W₁'s gradient; δ_t
gives the functional that is 1 at z_t and 0 at all other tokens, and the next search is held to
where all functionals found so far are 0. So each search is smaller than the one before, and the
last token is left alone. Tensors are decomposed like that, one component after the other
(Anandkumar et al., JMLR 2014): φ's curvature makes the gradients one of third order.

A search may end in a mixture of tokens that are nearly alike, and take their place. Where none is
found any more, the upstream gradients tell such mixtures, and bring each to the token it is nearest
to (`token_criteria`); what they had hidden is found then, where all others' functionals are 0.

Where photos are plain (a wall), several tokens may differ by less than float32 tells, and come out
as one, their mean. At this one, directions lead to the others along which φ(W₁ z + b₁) stays in the
second span, to first order: they tell which to take twice, or more often. Class tokens and
registers of all photos may differ as little; of these it is known that each photo has one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.feed_forward import FeedForward
from fedaudit.attacks.evidence.token_criteria import Tokens, Upstream

STARTS = 40
"""Searches at a time."""
HELD, FREE = 8, 8
"""Steps where the tokens found are held at 0, and then among all tokens."""
PATIENCE = 3
"""Rounds without a new token, and times that tokens were settled without a new most, after which
the rest is given up."""
SURE, FOUND = 2.5e-4, 1e-3
"""Relative length outside of the span that float32 leaves, at first and where nothing new is found
by that: 1.7e-4 and less of ViT-S's tokens, fresh, on photos of p01, p02, p05 and p06 of OpenPeople,
4e-4 and less, pre-trained for 20 steps, of p07 and p08. The mean of 14 tokens of a plain background
has 3.8e-4, and takes the place of all of them: with 1e-3 alone, 185 of 200 were found there, in 141
CPU seconds; so 199 are, in 52."""
GAP = 2.0
"""Least ratio of a spectrum's last singular value to the first that is noise: 100 of ViT-S's. Of
one network of ten, pre-trained, it is 3 for four photos of p09 and p10: 63 of 68 tokens come out,
and the photos at an SSIM of 0.71 to 1.00, where a search by spans ends in noise."""
LARGEST = 2e11
"""Tokens³ times hidden width up to which the search is made, some five minutes of one core: seven
photos of 112 px through ViT-S take a third, two of 224 px through ViT-B all."""
MIXED = 1e-8
"""Squared sine by which the upstream gradient of a token misses W₁'s from which on it is refined:
of nine batches of p05 to p10 through timm's ViT-S at 64 px, trained, true tokens have 6e-8 and
less. With 1e-7 some stay mixtures, and hide three others of 68."""
TWINS = 0.1
"""Share of the tokens that may stand for two. Of four photos of p09 and p10 through timm's ViT-S, 4
of 200 do, 2 % apart from their twins."""


def separate_tokens(
    layers: FeedForward, count: int, seed: int = 0, *, expected: Tensor | None = None
) -> Tensor | None:
    """All tokens `[count·T, D]` of a batch, in any order, in double precision.

    None where they are as many as the spans have dimensions, where the gradients do not show how
    many they are (noise, several steps), where the search would take too long (`LARGEST`), or where
    more are missing than are likely twins (`TWINS`).

    Args:
        layers: The feed-forward part, with its gradients.
        count: Images of the batch.
        seed: Of the starts.
        expected: `[E, D]`, tokens of which each photo has one, nearly (class tokens, registers).
    """
    total = count * layers.tokens
    hidden, width = layers.inner.weight.shape
    if total >= width or 2 * total > hidden or total**3 * hidden > LARGEST:
        return None
    whole = _whole_problem(layers, total)
    if whole is None:
        return None
    exact = whole.tokens
    tokens = exact.single()
    generator = torch.Generator().manual_seed(seed)
    found, functionals = exact.bias.new_zeros(0, total), exact.bias.new_zeros(0, total)
    idle, stale, most = 0, 0, (found, functionals)
    while len(found) < total and idle < PATIENCE and stale <= PATIENCE:
        if idle:  # some are mixtures: what they hide is not where they leave room
            found, functionals = _new_ones(whole, _refined(whole, found), found[:0], found[:0])
            stale += 1  # it may drop some, which the next round finds again, and so on
        free = _complement(functionals, total).to(tokens.basis)
        part = tokens.within(free)
        starts = min(STARTS, 2 * len(free) + 4)
        draws = torch.randn(starts, len(free), generator=generator).to(free)
        candidates = part.descend(draws, HELD, held=True) @ free
        if not idle:
            candidates = tokens.descend(candidates, FREE, held=False)
        before = len(found)
        left = tokens.outside(candidates)[1]
        bound = FOUND if idle else SURE
        candidates = candidates[left.argsort()][: int((left < bound).sum())].double()
        if idle:
            candidates = _refined(whole, candidates)
        found, functionals = _new_ones(whole, candidates, found, functionals)
        idle = idle + 1 if len(found) <= before else 0
        if len(found) > len(most[0]):
            most, stale = (found, functionals), 0
    found, functionals = most
    result: Tensor = found @ exact.basis
    if expected is not None:
        again = _alike(result, expected.to(result), count)[: total - len(found)]
        result = torch.cat([result, result[again]])
    missing = total - len(result)
    if missing > TWINS * total:
        return None
    return torch.cat([result, _twins(exact, found, functionals, missing) @ exact.basis])


def _alike(tokens: Tensor, expected: Tensor, count: int) -> list[int]:
    """Which tokens `[n, D]` stand for others, too, of those of which each photo has one `[E, D]`.

    They are told by the widest gap among those that are nearest to what is expected.
    """
    if len(tokens) <= count:
        return []
    again: list[int] = []
    apart = 1 - F.normalize(expected, dim=1) @ F.normalize(tokens, dim=1).T
    for near, which in zip(*apart.clamp_min(1e-12).sort(1), strict=True):
        gaps = near[1 : count + 1] / near[:count]
        seen = int(gaps.argmax()) + 1
        again += [int(which[0])] * (count - seen)
    return again


def _refined(whole: Upstream, candidates: Tensor) -> Tensor:
    """Candidates `[n, R]`, the surest first, of which those are refined that may be mixtures."""
    moved = [whole.refined(c) if whole.miss(c) > MIXED else c for c in candidates]
    moved.sort(key=whole.miss)
    return torch.stack(moved) if moved else candidates


def _new_ones(
    whole: Upstream, candidates: Tensor, found: Tensor, functionals: Tensor
) -> tuple[Tensor, Tensor]:
    """The tokens found, and their functionals, with those candidates that are none of them."""
    for c in candidates:
        if len(found) < len(c) and not (functionals @ c).abs().gt(0.5).any():
            found = torch.cat([found, c[None]])
            functionals = torch.cat([functionals, whole(c)[None]])
    return found, functionals


def _twins(exact: Tokens, found: Tensor, functionals: Tensor, missing: int) -> Tensor:
    """Those of the tokens found that stand for others, too, as often as they do, `[missing, R]`.

    Where a token's own functional is left out, what the others leave room for holds the directions
    to those that it hides. The surest is taken, and not looked at again.
    """
    twins, taken = found[:0], found[:0]
    while len(twins) < missing:
        likely: list[tuple[float, int, Tensor]] = []
        for number in range(len(found)):
            others = torch.cat([functionals[:number], functionals[number + 1 :], taken])
            free = _complement(others, functionals.shape[1])
            share, direction = exact.tangent(found[number], free)
            likely.append((share, number, direction))
        _, number, direction = min(likely, key=lambda one: one[0])
        twins = torch.cat([twins, found[number : number + 1]])
        taken = torch.cat([taken, direction[None]])
    return twins


def _complement(functionals: Tensor, total: int) -> Tensor:
    """Orthonormal rows `[r, R]` of which no functional sees anything."""
    if not len(functionals):
        return torch.eye(total).to(functionals)
    unit = functionals / functionals.norm(dim=1, keepdim=True)
    whole: Tensor = torch.linalg.qr(unit.T, mode="complete").Q
    return whole[:, len(functionals) :].T


def _whole_problem(layers: FeedForward, total: int) -> Upstream | None:
    """The search for `total` tokens; None where the gradients have another number of directions.

    The basis is scaled by the root of the gradient's singular values: a product of tokens and
    upstream gradients, it shows twice the decades that tokens have.
    """
    columns, sizes, rows = torch.linalg.svd(layers.gradients[0].double(), full_matrices=False)
    upstream, strengths, span = torch.linalg.svd(layers.gradients[1].double(), full_matrices=False)
    for spectrum in (sizes, strengths):
        if spectrum[total - 1] <= GAP * spectrum[total]:
            return None
    weight, outer = layers.inner.weight.detach().double(), layers.outer.weight.detach().double()
    bias, norm = layers.inner.bias, layers.norm
    gain = norm.weight.detach().double()
    roots = (sizes[:total] / sizes[0]).sqrt()
    basis = roots[:, None] * rows[:total]
    tokens = Tokens(
        basis=basis,
        response=basis @ weight.T,
        bias=weight.new_zeros(len(weight)) if bias is None else bias.detach().double(),
        span=span[:total].T.contiguous(),
        normal=basis / gain,
        offset=norm.bias.detach().double() / gain,
        activation=layers.activation,
    )
    likely = upstream[:, :total] * (strengths[:total] / strengths[0]).sqrt()
    return Upstream(tokens, columns[:, :total], roots, outer.T @ likely)

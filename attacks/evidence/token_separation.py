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

After several steps the spans are those of the tokens at all of them, and hold, as weights change,
more directions than there are tokens. The tokens of the first step, at weights that are known, are
among them. Their functionals are then no longer the only ones: the shortest is taken. A mixture is
told by all others' functionals, and searched for once more where these are 0.

Where photos are plain (a wall), several tokens may differ by less than float32 tells, and come out
as one, their mean. At this one, directions lead to the others along which φ(W₁ z + b₁) stays in the
second span, to first order: they tell which to take twice, or more often. Class tokens and
registers of all photos may differ as little; of these it is known that each photo has one.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.feed_forward import FeedForward
from fedaudit.attacks.evidence.token_criteria import Tokens, Upstream

STARTS = 40
"""Searches at a time."""
HELD, FREE = 8, 8
"""Steps where the tokens found are held at 0, twice as many where it is searched once more, and
then among all tokens."""
AGAIN = 5
"""Draws from which a token that is less sure is searched for once more, after several steps: set
once, and not varied."""
KNOWN = 0.5
"""Value of a token's functional from which on a candidate is that token, or a mixture of it."""
PATIENCE = 3
"""Rounds without a new token, and times that tokens were settled without a new most, after which
the rest is given up."""
SURE, FOUND = 2.5e-4, 1e-3
"""Relative length outside of the span that float32 leaves, at first and where nothing new is found
by that: 1.7e-4 and less of ViT-S's tokens, fresh, on photos of p01, p02, p05 and p06 of OpenPeople,
4e-4 and less, pre-trained for 20 steps, of p07 and p08. The mean of 14 tokens of a plain background
has 3.8e-4, and takes the place of all of them: with 1e-3 alone, 185 of 200 were found there, in 141
CPU seconds; so 199 are, in 52."""
GAP = 1.3
"""Least ratio of the last singular value that is a token's to the first that is noise."""
CLEAN = 6e-7
"""Noise, in units of a spectrum's largest value, from which on what is allowed of it (`SURE`,
`FOUND`, `MIXED`) grows alike. Through timm's ViT-S, four photos of p01 and p02, gradients have
3e-8; the rounding of weights leaves 6e-7 of one step of SGD at a rate of 0.01, 6e-6 at 0.001. Not
told by the last token's value: of a plain background it is small in the least noise, too."""
LOOSER = (1.0, 4.0)
"""Factors by which more is allowed, in turn, while more tokens are missing than are likely twins.
The second was set by the small transformer of tests/attacks/test_drifting_tokens.py."""
DRIFTED = 8.0
"""Factor by which more is allowed where weights changed from step to step. By four photos of p01
and p02 through timm's ViT-S, four steps of SGD: at a rate of 0.001 true tokens have 3e-3 and less,
and with 2 half of them are missing; at 0.01 they have 4e-4."""
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
CLEAR = 100.0
"""Least ratio by which other tokens are further than one kind's, as squared angle: 900 of three
photos' registers through timm's DINOv3-S, where one came out four times, 1.03 of the class
tokens of the small transformer of tests/attacks/transformer_batches.py."""


def separate_tokens(
    layers: FeedForward, count: int, seed: int = 0, *, expected: Tensor | None = None
) -> Tensor | None:
    """All tokens `[count·T, D]` of a batch, in any order, in double precision.

    None where they are as many as the spans have dimensions, where the gradients do not show how
    many they are (noise), where the search would take too long (`LARGEST`), or where more are
    missing than are likely twins (`TWINS`).

    Args:
        layers: The feed-forward part, with its gradients.
        count: Images of the batch.
        seed: Of the starts.
        expected: `[E, D]`, tokens of which each photo has one, nearly (class tokens, registers).
    """
    total = count * layers.tokens
    hidden, width = layers.inner.weight.shape
    if total >= width or 2 * total > hidden:
        return None
    whole = _whole_problem(layers, total)
    if whole is None or len(whole.sizes) ** 3 * hidden > LARGEST:
        return None
    for looser in LOOSER:
        search = replace(whole, noise=looser * whole.noise)
        found, functionals = _found_tokens(search, total, seed)
        result: Tensor = found @ whole.tokens.basis
        if expected is not None:
            again, spare = _alike(result, expected.to(result), count)
            found, functionals = (rows[~spare] for rows in (found, functionals))
            result = torch.cat([result[~spare], result[again[: total - len(found)]]])
        missing = total - len(result)
        if missing <= TWINS * total:
            twins = _twins(whole.tokens, found, functionals, missing)
            return torch.cat([result, twins @ whole.tokens.basis])
    return None


def _found_tokens(whole: Upstream, total: int, seed: int) -> tuple[Tensor, Tensor]:
    """As many tokens as come apart, and their functionals, `[n, R]` each."""
    exact, noise, width = whole.tokens, whole.noise, len(whole.sizes)
    tokens, drifted = exact.single(), whole.drifted
    generator = torch.Generator().manual_seed(seed)
    found, functionals = exact.bias.new_zeros(0, width), exact.bias.new_zeros(0, width)
    idle, stale, most = 0, 0, (found, functionals)
    while len(found) < total and idle < PATIENCE and stale <= PATIENCE:
        if idle:  # some are mixtures: what they hide is not where they leave room
            settled = (
                _apart(whole, found, functionals, generator)[0]
                if drifted
                else _refined(whole, found)
            )
            found, functionals = _new_ones(whole, settled, total, found[:0], functionals[:0])
            stale += 1  # it may drop some, which the next round finds again, and so on
        free = _complement(functionals, width).to(tokens.basis)
        part = tokens.within(free)
        starts = min(STARTS, 2 * len(free) + 4)
        draws = torch.randn(starts, len(free), generator=generator).to(free)
        candidates = part.descend(draws, HELD * (2 if idle else 1), held=True) @ free
        if drifted or not idle:
            moved = tokens.descend(candidates, FREE, held=False)
            lost = _are_known(moved.double(), functionals) & bool(idle)
            candidates = torch.where(lost[:, None], candidates, moved)
        before = len(found)
        left = tokens.outside(candidates)[1]
        bound = noise * (FOUND if idle else SURE)
        candidates = candidates[left.argsort()][: int((left < bound).sum())].double()
        if idle and not drifted:
            candidates = _refined(whole, candidates)
        found, functionals = _new_ones(whole, candidates, total, found, functionals)
        idle = idle + 1 if len(found) <= before else 0
        if len(found) > len(most[0]):
            most, stale = (found, functionals), 0
    found, functionals = most
    if drifted:
        found, functionals = _apart(whole, found, functionals, generator)
    return found, functionals


def _alike(tokens: Tensor, expected: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of those of which each photo has one `[E, D]`, which tokens `[n, D]` stand for others, too.

    They are told by the widest gap among those that are nearest to what is expected. And which are
    spare, `[n]`: of a kind that stands clear (`CLEAR`) and has come out more often than once a
    photo, as a mixture of it may, the last found.
    """
    again, spare = tokens.new_zeros(0).long(), torch.zeros(len(tokens), dtype=torch.bool)
    if len(tokens) <= count:
        return again, spare
    apart = 1 - F.normalize(expected, dim=1) @ F.normalize(tokens, dim=1).T
    for near, which in zip(*apart.clamp_min(1e-12).sort(1), strict=True):
        gaps = near[1:] / near[:-1]
        widest = gaps[: 2 * count].max(0)
        clear = bool(widest.values > CLEAR)
        seen = int(widest.indices if clear else gaps[:count].argmax()) + 1
        again = torch.cat([again, which[:1].expand(max(count - seen, 0))])
        spare[which[:seen].sort().values[count:]] = True
    return again, spare


def _refined(whole: Upstream, candidates: Tensor) -> Tensor:
    """Candidates `[n, R]`, the surest first, of which those are refined that may be mixtures."""
    bound = MIXED * whole.noise**2
    moved = [whole.refined(c) if whole.miss(c) > bound else c for c in candidates]
    moved.sort(key=whole.miss)
    return torch.stack(moved) if moved else candidates


def _apart(
    whole: Upstream, found: Tensor, functionals: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The tokens found, the surest first, and their functionals, after several steps.

    Those that are less sure are searched for once more where the functionals of all others are 0.
    """
    exact = whole.tokens
    found, functionals, left = found.clone(), functionals.clone(), exact.outside(found)[1]
    for number in left.argsort(descending=True).tolist():
        if left[number] <= SURE:
            break
        others = torch.cat([functionals[:number], functionals[number + 1 :]])
        free = _complement(others, functionals.shape[1])
        draws = torch.randn(AGAIN, len(free), generator=generator).to(free)
        draws = torch.cat([found[number : number + 1] @ free.T, draws])
        held = exact.within(free).descend(draws, HELD, held=True) @ free
        moved = torch.cat([held, exact.descend(held, FREE, held=False)])
        moved = moved[~_are_known(moved, others)]
        after = exact.outside(moved)[1]
        if len(after) and after.min() < left[number]:
            found[number], left[number] = moved[after.argmin()], after.min()
            functionals[number] = whole(found[number])
    order = left.argsort()
    return found[order], functionals[order]


def _are_known(candidates: Tensor, functionals: Tensor) -> Tensor:
    """Which candidates `[n, R]` are tokens, or mixtures of those, that have these functionals."""
    known: Tensor = (candidates @ functionals.T).abs().gt(KNOWN).any(1)
    return known


def _new_ones(
    whole: Upstream, candidates: Tensor, total: int, found: Tensor, functionals: Tensor
) -> tuple[Tensor, Tensor]:
    """The tokens found, and their functionals, with those candidates that are none of them."""
    for c in candidates:
        if len(found) < total and not _are_known(c[None], functionals):
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


def _complement(functionals: Tensor, width: int) -> Tensor:
    """Orthonormal rows `[r, R]` of which no functional sees anything, R the width."""
    if not len(functionals):
        return torch.eye(width).to(functionals)
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
    first = _directions(layers.gradients[0], sizes, total)
    second = _directions(layers.gradients[1], strengths, total)
    if first is None or second is None:
        return None
    (width, noise), (height, beyond) = first, second
    weight, outer = layers.inner.weight.detach().double(), layers.outer.weight.detach().double()
    bias, norm = layers.inner.bias, layers.norm
    gain = norm.weight.detach().double()
    roots = (sizes[:width] / sizes[0]).sqrt()
    basis = roots[:, None] * rows[:width]
    tokens = Tokens(
        basis=basis,
        response=basis @ weight.T,
        bias=weight.new_zeros(len(weight)) if bias is None else bias.detach().double(),
        span=span[:height].T.contiguous(),
        normal=basis / gain,
        offset=norm.bias.detach().double() / gain,
        activation=layers.activation,
    )
    likely = upstream[:, :height] * (strengths[:height] / strengths[0]).sqrt()
    drifted = max(width, height) > total
    noise = DRIFTED if drifted else max(noise / CLEAN, beyond / CLEAN, 1.0)
    return Upstream(tokens, columns[:, :width], roots, outer.T @ likely, noise, drifted)


def _directions(gradient: Tensor, spectrum: Tensor, total: int) -> tuple[int, float] | None:
    """How many singular values are none of noise, and what noise is of the largest.

    They are told as Gavish and Donoho do (IEEE Transactions on Information Theory 2014), by the
    median of all, which is noise. More than there are tokens are there after several steps. None
    where tokens are lost in noise.
    """
    known = total, float(spectrum[total] / spectrum[0])
    found = known if spectrum[total - 1] > GAP * spectrum[total] else None
    if known[1] <= CLEAN:  # float32 leaves no white noise
        return found
    ratio = min(gradient.shape) / max(gradient.shape)
    least = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
    edge = least * spectrum.median()
    seen = int((spectrum > edge).sum())
    return (seen, float(edge / spectrum[0])) if seen > total else found

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

Where photos are alike at a place (a plain background), two tokens may differ by less than float32
tells, and come out as one. Two upstream gradients belong to it, where others have one:
that tells which to take twice.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.attacks.evidence.feed_forward import Activation, FeedForward

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
GAP = 4.0
"""Least ratio of a spectrum's last singular value to the first that is noise: 100 of ViT-S's."""
LENGTH = 10.0
"""Weight of the length of a token against what lies outside of the span."""
LARGEST = 2e11
"""Tokens³ times hidden width up to which the search is made, some five minutes of one core: seven
photos of 112 px through ViT-S take a third, two of 224 px through ViT-B all."""
TWINS = 0.1
"""Share of the tokens that may stand for two. Of four photos of p09 and p10 through timm's ViT-S, 4
of 200 do, 2 % apart from their twins."""
FLOOR = 1e-3
"""Damping of a direction that hardly counts, in units of the mean."""


@dataclass(frozen=True)
class _Tokens:
    """Candidates z = c·basis, and what of φ(W₁ z + b₁) lies outside of the span of the tokens'.

    Attributes:
        basis: `[r, D]`.
        response: W₁ of it, `[r, H]`.
        bias: b₁, `[H]`.
        span: Orthonormal columns `[H, R]`, of all tokens.
        normal: The basis before the layer norm's gain, `[r, D]`.
        offset: The layer norm's offset before its gain, `[D]`.
        activation: φ.
    """

    basis: Tensor
    response: Tensor
    bias: Tensor
    span: Tensor
    normal: Tensor
    offset: Tensor
    activation: Activation

    def single(self) -> "_Tokens":
        """The same in single precision, in which a step costs half."""
        return _Tokens(
            basis=self.basis.float(),
            response=self.response.float(),
            bias=self.bias.float(),
            span=self.span.float(),
            normal=self.normal.float(),
            offset=self.offset.float(),
            activation=self.activation,
        )

    def within(self, rows: Tensor) -> "_Tokens":
        """The same of c = q·rows only, `[r', r]`."""
        basis, response, normal = rows @ self.basis, rows @ self.response, rows @ self.normal
        return replace(self, basis=basis, response=response, normal=normal)

    def as_long(self, c: Tensor) -> Tensor:
        """The candidates with the length that a layer norm gives."""
        n = c @ self.normal
        square, along = n.square().sum(1), n @ self.offset
        beyond = self.offset.square().sum() - self.normal.shape[1]
        root = (along.square() - square * beyond).clamp_min(0).sqrt()
        return c * ((along + root) / square)[:, None]

    def outside(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """The part outside `[n, H]`, and its relative length `[n]`."""
        hidden = self.activation(c @ self.response + self.bias)
        left = hidden - (hidden @ self.span) @ self.span.T
        return left, left.norm(dim=1) / hidden.norm(dim=1)

    def cost(self, c: Tensor) -> Tensor:
        """What is minimized, `[n]`."""
        return self.outside(c)[0].square().sum(1) + LENGTH * self._too_long(c)[0].square()

    def _too_long(self, c: Tensor) -> tuple[Tensor, Tensor]:
        n, width = c @ self.normal - self.offset, self.normal.shape[1]
        return n.square().sum(1) / width - 1, 2 * (n @ self.normal.T) / width

    def slopes(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Half the derivative `[n, r]` of the cost, and the Gauss–Newton matrix `[n, r, r]`."""
        arrived = c @ self.response + self.bias
        slopes = _slopes(self.activation, arrived)
        left, (excess, direction) = self.outside(c)[0], self._too_long(c)
        gradient = LENGTH * excess[:, None] * direction
        matrix = LENGTH * direction[:, :, None] * direction[:, None]
        for i, slope in enumerate(slopes):  # one at a time: [r, H] each
            jacobian = self.response * slope
            inside = jacobian @ self.span
            matrix[i] += jacobian @ jacobian.T - inside @ inside.T
            gradient[i] += jacobian @ left[i]
        return gradient, matrix

    def descend(self, c: Tensor, steps: int, *, held: bool) -> Tensor:
        """Levenberg–Marquardt; `held`: to the exact length of tokens, from anywhere."""
        if held:
            c = self.as_long(c)
        damping = torch.full_like(c[:, 0], 1e-2)
        cost = self.cost(c)
        for _ in range(steps):
            gradient, matrix = self.slopes(c)
            diagonal = matrix.diagonal(dim1=1, dim2=2)
            least = FLOOR * diagonal.mean(1, keepdim=True)
            matrix = matrix + torch.diag_embed(damping[:, None] * (diagonal + least))
            factor, failure = torch.linalg.cholesky_ex(matrix)
            moved = c - torch.cholesky_solve(gradient[..., None], factor)[..., 0]
            moved = self.as_long(moved) if held else moved
            after = self.cost(moved)
            better = (after < cost) & (failure == 0)
            c, cost = torch.where(better[:, None], moved, c), torch.where(better, after, cost)
            damping = torch.where(better, damping * 0.3, damping * 4).clamp(1e-7, 1e6)
        return c


@dataclass(frozen=True)
class _Functionals:
    """Gives the functional that tells how much of one token a mixture holds.

    Attributes:
        tokens: The candidates, in double precision.
        columns: Left singular vectors of W₁'s gradient, `[H, R]`.
        sizes: Roots of its singular values, `[R]`.
        upstream: W₂ᵀ times the column space of W₂'s gradient, `[H, R]`.
    """

    tokens: _Tokens
    columns: Tensor
    sizes: Tensor
    upstream: Tensor

    def __call__(self, c: Tensor) -> Tensor:
        """The functional `[R]` of the token `c`, `[R]`."""
        possible, inside = self._possible_upstream(c)
        _, vectors = torch.linalg.eigh(possible.T @ possible - inside.T @ inside)
        functional: Tensor = inside @ vectors[:, 0] / self.sizes
        return functional / (functional @ c)

    def second(self, c: Tensor) -> float:
        """Squared sine between W₁'s gradient and a second upstream gradient at the token `c`."""
        possible, inside = self._possible_upstream(c)
        length = possible.T @ possible
        length.diagonal().add_(1e-14 * length.diagonal().mean())  # positive in spite of rounding
        factor = torch.linalg.cholesky(length)
        part = torch.linalg.solve_triangular(factor, inside.T, upper=False)
        return 1 - float(torch.linalg.eigvalsh(part @ part.T)[-2])

    def _possible_upstream(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Upstream gradients that a token `c` can have, `[H, R]`; what of them W₁ has, `[R, R]`."""
        arrived = c @ self.tokens.response + self.tokens.bias
        possible = _slopes(self.tokens.activation, arrived)[:, None] * self.upstream
        return possible, self.columns.T @ possible


def separate_tokens(layers: FeedForward, count: int, seed: int = 0) -> Tensor | None:
    """All tokens `[count·T, D]` of a batch, in any order, in double precision.

    None where they are as many as the spans have dimensions, where the gradients do not show how
    many they are (noise, several steps), where the search would take too long (`LARGEST`), or where
    more are missing than are likely twins (`TWINS`).

    Args:
        layers: The feed-forward part, with its gradients.
        count: Images of the batch.
        seed: Of the starts.
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
    idle, stale, most = 0, 0, 0
    while len(found) < total and idle < PATIENCE and stale <= PATIENCE:
        if idle:  # some are not exact: what they hide is not where they leave room
            found, functionals = _new_ones(whole, _settled(tokens, found), found[:0], found[:0])
            stale += 1  # it may drop some, which the next round finds again, and so on
        free = _complement(functionals, total).to(tokens.basis)
        part = tokens.within(free)
        starts = min(STARTS, 2 * len(free) + 4)
        draws = torch.randn(starts, len(free), generator=generator).to(free)
        candidates = part.descend(draws, HELD, held=True) @ free
        candidates = tokens.descend(candidates, FREE * (1 + 2 * idle), held=False)
        before = len(found)
        left = tokens.outside(candidates)[1]
        bound = FOUND if idle else SURE
        candidates = candidates[left.argsort()][: int((left < bound).sum())].double()
        found, functionals = _new_ones(whole, candidates, found, functionals)
        idle = idle + 1 if len(found) <= before else 0
        if len(found) > most:
            most, stale = len(found), 0
    missing = total - len(found)
    if missing > TWINS * total:
        return None
    twins = sorted(found, key=whole.second)[:missing]
    result: Tensor = torch.cat([found, *(one[None] for one in twins)]) @ exact.basis
    return result


def _settled(tokens: _Tokens, found: Tensor) -> Tensor:
    """Tokens after further steps, the surest first."""
    moved = tokens.descend(found.float(), 2 * HELD, held=False)
    return moved[tokens.outside(moved)[1].argsort()].double()


def _new_ones(
    whole: _Functionals, candidates: Tensor, found: Tensor, functionals: Tensor
) -> tuple[Tensor, Tensor]:
    """The tokens found, and their functionals, with those candidates that are none of them."""
    for c in candidates:
        if len(found) < len(c) and not (functionals @ c).abs().gt(0.5).any():
            found = torch.cat([found, c[None]])
            functionals = torch.cat([functionals, whole(c)[None]])
    return found, functionals


def _slopes(activation: Activation, arrived: Tensor) -> Tensor:
    """φ', place by place."""
    slopes: Tensor = torch.func.jvp(activation, (arrived,), (torch.ones_like(arrived),))[1]
    return slopes


def _complement(functionals: Tensor, total: int) -> Tensor:
    """Orthonormal rows `[r, R]` of which no functional sees anything."""
    if not len(functionals):
        return torch.eye(total).to(functionals)
    unit = functionals / functionals.norm(dim=1, keepdim=True)
    whole: Tensor = torch.linalg.qr(unit.T, mode="complete").Q
    return whole[:, len(functionals) :].T


def _whole_problem(layers: FeedForward, total: int) -> _Functionals | None:
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
    tokens = _Tokens(
        basis=basis,
        response=basis @ weight.T,
        bias=weight.new_zeros(len(weight)) if bias is None else bias.detach().double(),
        span=span[:total].T.contiguous(),
        normal=basis / gain,
        offset=norm.bias.detach().double() / gain,
        activation=layers.activation,
    )
    likely = upstream[:, :total] * (strengths[:total] / strengths[0]).sqrt()
    return _Functionals(tokens, columns[:, :total], roots, outer.T @ likely)

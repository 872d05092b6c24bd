"""Two criteria of a single token of a transformer's feed-forward part, W₂ φ(W₁ z + b₁).

The first is that of `token_separation`: φ(W₁ z + b₁) lies in the span that W₂'s gradient shows. It
is met to second order by a mixture of two tokens that are nearly alike: between tokens 4 % apart
float32 hides what lies outside. The second is met to first order: an upstream gradient g of W₂'s
column space for which φ'(…) ∘ W₂ᵀ g lies in the column space of W₁'s gradient. Tokens and their
upstream gradients that meet both are found by Levenberg–Marquardt.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.attacks.evidence.feed_forward import Activation

LENGTH = 10.0
"""Weight of the length of a token against what lies outside of the span."""
FLOOR = 1e-3
"""Damping of a direction that hardly counts, in units of the mean."""
SHORT = 1e-6
"""Weight of a functional's length against what its upstream gradient misses, both relative to the
largest: 1e-8 to 1e-4 give the same functionals."""
STEPS, TRIES, GAIN = 12, 8, 1e-3
"""Steps by which a token is refined, dampings that each tries, at most, and the least gain."""


@dataclass(frozen=True)
class Tokens:
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

    def single(self) -> "Tokens":
        """The same in single precision, in which a step costs half."""
        return Tokens(
            basis=self.basis.float(),
            response=self.response.float(),
            bias=self.bias.float(),
            span=self.span.float(),
            normal=self.normal.float(),
            offset=self.offset.float(),
            activation=self.activation,
        )

    def within(self, rows: Tensor) -> "Tokens":
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

    def tangent(self, c: Tensor, rows: Tensor) -> tuple[float, Tensor]:
        """Where, at a token `c`, `[R]`, another is that is nearly alike, among `rows`, `[m, R]`.

        The direction `[R]` along which φ(…) changes least outside of the span, and the share of its
        change that does, as variance: next to nothing on the way to another token.
        """
        changes = (rows @ self.response) * _slopes(self.activation, c @ self.response + self.bias)
        left = changes - (changes @ self.span) @ self.span.T
        length = changes @ changes.T
        length.diagonal().add_(1e-14 * length.diagonal().mean())  # positive in spite of rounding
        factor = torch.linalg.cholesky(length)
        part = torch.linalg.solve_triangular(factor, left, upper=False)
        shares, vectors = torch.linalg.eigh(part @ part.T)
        likely = torch.linalg.solve_triangular(factor.T, vectors[:, :1], upper=True)[:, 0]
        return float(shares[0]), likely @ rows

    def cost(self, c: Tensor) -> Tensor:
        """What is minimized, `[n]`."""
        return self.outside(c)[0].square().sum(1) + LENGTH * self.too_long(c)[0].square()

    def too_long(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """How much longer than a layer norm gives them, `[n]`, and the slope of that `[n, r]`."""
        n, width = c @ self.normal - self.offset, self.normal.shape[1]
        return n.square().sum(1) / width - 1, 2 * (n @ self.normal.T) / width

    def slopes(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Half the derivative `[n, r]` of the cost, and the Gauss–Newton matrix `[n, r, r]`."""
        arrived = c @ self.response + self.bias
        slopes = _slopes(self.activation, arrived)
        left, (excess, direction) = self.outside(c)[0], self.too_long(c)
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
class Upstream:
    """Gives the functional that tells how much of one token a mixture holds.

    Attributes:
        tokens: The candidates, in double precision.
        columns: Left singular vectors of W₁'s gradient, `[H, R]`.
        sizes: Roots of its singular values, `[R]`.
        upstream: W₂ᵀ times the column space of W₂'s gradient, `[H, R]`.
        noise: Errors of the gradients, in units of those that float32 leaves.
        drifted: Whether weights changed from step to step.
    """

    tokens: Tokens
    columns: Tensor
    sizes: Tensor
    upstream: Tensor
    noise: float = 1.0
    drifted: bool = False

    def __call__(self, c: Tensor) -> Tensor:
        """The functional `[R]` of the token `c`, `[R]`; the shortest of several steps' ones."""
        possible, inside = self._possible_upstream(c)
        scaled, missed = inside / self.sizes[:, None], possible.T @ possible - inside.T @ inside
        if self.drifted:
            missed = missed / possible.square().sum()
            length = SHORT * scaled.T @ scaled / scaled.square().sum()
            length.diagonal().add_(1e-13)
            best = torch.linalg.solve(missed + length, scaled.T @ c)
        else:
            best = torch.linalg.eigh(missed).eigenvectors[:, 0]
        functional: Tensor = scaled @ best
        return functional / (functional @ c)

    def miss(self, c: Tensor) -> float:
        """Squared sine between W₁'s gradient and the best upstream gradient at the token `c`."""
        return 1 - float(self._shares(c)[0][-1])

    def refined(self, c: Tensor) -> Tensor:
        """The token `c` `[R]` moved, with its upstream gradient, to where both criteria are met.

        Both as relative lengths, and weighed alike: float32 leaves 1e-4 of either. What the update
        hides of a mixture of two tokens from the first criterion, the second sees.
        """
        upstream = self._shares(c)[1]
        c, upstream, damping = c.clone(), upstream / upstream.norm(), 1e-3
        left, slopes = self._both(c, upstream)
        for _ in range(STEPS):
            matrix, gradient = slopes.T @ slopes, slopes.T @ left
            along = torch.cat([torch.zeros_like(c), upstream])  # its length is free
            matrix += matrix.diagonal().max() * torch.outer(along, along)
            diagonal = matrix.diagonal() + 1e-9 * matrix.diagonal().mean()
            before = left.square().sum()
            for _ in range(TRIES):
                move = torch.linalg.solve(matrix + torch.diag(damping * diagonal), gradient)
                moved, arrives = c - move[: len(c)], upstream - move[len(c) :]
                left, slopes = self._both(moved, arrives / arrives.norm())
                if left.square().sum() < before:
                    break
                damping *= 6
            else:
                return c
            c, upstream, damping = moved, arrives / arrives.norm(), damping / 5
            if left.square().sum() > (1 - GAIN) * before:
                break
        return c

    def _shares(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """What W₁'s gradient has of upstream gradients at a token `c`, `[R]`, and the best, `[R]`.

        Squared cosines, the least first.
        """
        possible, inside = self._possible_upstream(c)
        length = possible.T @ possible
        length.diagonal().add_(1e-14 * length.diagonal().mean())  # positive in spite of rounding
        factor = torch.linalg.cholesky(length)
        part = torch.linalg.solve_triangular(factor, inside.T, upper=False)
        values, vectors = torch.linalg.eigh(part @ part.T)
        best = torch.linalg.solve_triangular(factor.T, vectors[:, -1:], upper=True)[:, 0]
        return values, best

    def _both(self, c: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """What both criteria and the length leave, `[2 H + 1]`, and its slopes `[2 H + 1, 2 R]`."""
        tokens = self.tokens
        arrived, arrives = c @ tokens.response + tokens.bias, self.upstream @ upstream
        hidden, slopes = tokens.activation(arrived), _slopes(tokens.activation, arrived)
        bends = torch.func.jvp(
            lambda x: _slopes(tokens.activation, x), (arrived,), (torch.ones_like(arrived),)
        )[1]
        sent = slopes * arrives
        first = torch.cat([hidden[:, None], (tokens.response * slopes).T], 1) / hidden.norm()
        own = self.upstream * slopes[:, None]
        second = torch.cat([sent[:, None], (tokens.response * bends * arrives).T, own], 1)
        second = second / sent.norm()
        first = first - tokens.span @ (tokens.span.T @ first)
        second = second - self.columns @ (self.columns.T @ second)
        excess, direction = tokens.too_long(c[None])
        last = torch.cat([excess, direction[0]])[None] * LENGTH**0.5
        slack = c.new_zeros(1, len(upstream)).expand(len(first) + 1, -1)
        top = torch.cat([torch.cat([first, last]), slack], 1)
        whole = torch.cat([top, second])
        return whole[:, 0], whole[:, 1:]

    def _possible_upstream(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Upstream gradients that a token `c` can have, `[H, R]`; what of them W₁ has, `[R, R]`."""
        arrived = c @ self.tokens.response + self.tokens.bias
        possible = _slopes(self.tokens.activation, arrived)[:, None] * self.upstream
        return possible, self.columns.T @ possible


def _slopes(activation: Activation, arrived: Tensor) -> Tensor:
    """φ', place by place."""
    slopes: Tensor = torch.func.jvp(activation, (arrived,), (torch.ones_like(arrived),))[1]
    return slopes

"""How well tokens of a transformer fit places, and the patches that follow where they stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.evidence.transformer_front import Front


@dataclass(frozen=True)
class PlaceFit:
    """How well tokens fit places: σ z + μ − W x = c, weighed by what is not known of c.

    Attributes:
        front: The network.
        extra: Tokens before the patches (a class token), which have no patch.
        covariance: Of what is not known of a context, `[D, D]`.
        usual: The mean context of each token, `[T, D]`.
    """

    front: Front
    extra: int
    covariance: Tensor
    usual: Tensor

    @property
    def apart(self) -> float:
        """Mean square of what tells two places, in units of what is not known of a context."""
        if self.front.places == 1:
            return float("inf")
        contexts, basis = self._whiten(self.usual[self.extra :]), self._basis(patched=True)
        contexts = contexts - contexts @ basis @ basis.T
        return float((torch.pdist(contexts).square() / contexts.shape[1]).median())

    def _whiten(self, rows: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(self.covariance)
        whitened: Tensor = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        return whitened.T

    def _open(self) -> Tensor:
        """What a mean and a patch leave open, whitened, `[1 + R, D]`."""
        weight = self.front.patch.weight.detach().flatten(1)
        ones = weight.new_ones(1, len(weight))
        return self._whiten(torch.cat([ones, -self.front.span @ weight.T]))

    def _basis(self, *, patched: bool) -> Tensor:
        """The same, orthonormal, `[D, 1 + R]`; where there is no patch, of a mean, `[D, 1]`."""
        basis: Tensor = torch.linalg.qr(self._open()[: None if patched else 1].T).Q
        return basis

    def left(self, tokens: Tensor, contexts: Tensor, *, patched: bool) -> Tensor:
        """Mean square of what no patch explains, `[n, m]`, of tokens `[n, D]` in contexts `[m, D]`.

        `patched`: the tokens have a patch; else only a mean.
        """
        basis = self._basis(patched=patched)
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
        basis = self._basis(patched=True)
        outside_z, outside_c = z - z @ basis @ basis.T, c - c @ basis @ basis.T
        scale = (outside_z * outside_c).sum(1) / outside_z.square().sum(1)
        rest = c - scale[:, None] * z
        solution = torch.linalg.lstsq(left_open.T, rest.T).solution
        patches: Tensor = solution[1:].T @ self.front.span
        return patches

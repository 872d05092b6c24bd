"""DP-SGD on the client, through Opacus."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

from opacus import PrivacyEngine
from opacus.accountants import create_accountant
from opacus.validators import ModuleValidator
from torch import nn
from torch.optim import Optimizer

from fedaudit.data.splits import Split
from fedaudit.defenses.acts import Noise, Replayed, clip
from fedaudit.defenses.budgets import with_budget
from fedaudit.errors import ConfigError
from fedaudit.models.private import changes_of, private_spec
from fedaudit.types import Budget, DefenseFacts, ModelSpec
from fedaudit.verbs import ClientReturn, ClientStep, ClientTask


@dataclass(frozen=True, kw_only=True)
class DPSGD:
    """Clip each image's gradient, add Gaussian noise (Abadi et al., CCS 2016, algorithm 1).

    Opacus' PrivacyEngine does the work: per-sample gradients, clipping, noise, Poisson sampling and
    accounting. Guarantee: (ε, δ) for adding or removing one image, for one round of one client;
    rounds compose.

    Args:
        noise_multiplier: σ, in units of the clipping norm; ≥ 0.
        max_grad_norm: C, the clipping norm of one image's gradient (L2); > 0.
        delta: δ at which ε is stated; in (0, 1).
        accountant: "rdp" or "prv".
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    delta: float = 1e-5
    accountant: Literal["rdp", "prv"] = "rdp"

    def __post_init__(self) -> None:
        if self.noise_multiplier < 0:
            raise ValueError(f"noise_multiplier must be ≥ 0, not {self.noise_multiplier}")
        if self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be > 0, not {self.max_grad_norm}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), not {self.delta}")
        if self.accountant not in ("rdp", "prv"):
            raise ValueError(f"accountant must be 'rdp' or 'prv', not {self.accountant!r}")

    def __call__(self, step: ClientStep) -> ClientStep:
        """Run the client's training under a PrivacyEngine."""

        def private_step(task: ClientTask) -> ClientReturn:
            engines: list[PrivacyEngine] = []

            def prepare(model: nn.Module, optimizer: Optimizer, loader: Any) -> tuple[Any, ...]:
                engine = PrivacyEngine(accountant=self.accountant)
                engines.append(engine)
                return self._make_private(engine, task, model, optimizer, loader)

            with warnings.catch_warnings():
                # Opacus warns that its noise is not from a secure source: right for an audit, whose
                # runs must be repeatable, and that hooks fire on inputs without gradients.
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("ignore", FutureWarning)
                returned = step(replace(task, prepare=prepare))
            return with_budget(returned, self._budget(engines[0]) if engines else None)

        return private_step

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with group norm for batch norm, and without layers that overwrite."""
        del split
        return private_spec(spec)

    def notes(self, spec: ModelSpec) -> tuple[str, ...]:
        """What that changes in the network of `spec`."""
        return changes_of(spec).said()

    def facts(self) -> DefenseFacts:
        """Clipping norm and noise are public."""
        settings = {
            "noise_multiplier": self.noise_multiplier,
            "max_grad_norm": self.max_grad_norm,
            "delta": self.delta,
            "accountant": self.accountant,
        }
        return DefenseFacts("dpsgd", settings)

    def replay(self, count: int) -> Replayed:
        """One step on an attacker's gradients: each image's is clipped, the mean is noised."""
        noise = Noise(self.noise_multiplier * self.max_grad_norm / count)
        return Replayed(each=(clip(self.max_grad_norm),), mean=(noise,))

    def _make_private(
        self, engine: PrivacyEngine, task: ClientTask, model: nn.Module, optimizer: Any, loader: Any
    ) -> tuple[Any, ...]:
        if problems := ModuleValidator.validate(model, strict=False):
            raise ConfigError(
                f"DP-SGD needs per-sample gradients, which this network does not allow: "
                f"{problems[0]}. Use a network with GroupNorm in place of BatchNorm."
            )
        private: tuple[Any, ...] = engine.make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            noise_generator=task.generator,
        )
        return private

    def _budget(self, engine: PrivacyEngine) -> Budget:
        epsilon = float("inf")
        if self.noise_multiplier > 0:
            epsilon = _epsilon(engine.accountant, self.delta)
        return Budget(
            epsilon=epsilon,
            delta=self.delta,
            unit="one image, one round",
            mechanism=f"DP-SGD, C = {self.max_grad_norm:g}, σ = {self.noise_multiplier:g}, "
            "Poisson sampling, add/remove",
            accountant=f"opacus {self.accountant}",
        )

    def composed(self, *, sample_rate: float, steps: int) -> float:
        """ε after `steps` steps at `sample_rate`, at this defense's δ, by the same accountant."""
        if self.noise_multiplier == 0:
            return float("inf")
        accountant = create_accountant(self.accountant)
        for _ in range(steps):
            accountant.step(noise_multiplier=self.noise_multiplier, sample_rate=sample_rate)
        return _epsilon(accountant, self.delta)


def _epsilon(accountant: Any, delta: float) -> float:
    return float(accountant.get_epsilon(delta))

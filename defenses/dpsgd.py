"""DP-SGD on the client, through Opacus."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedaudit.core.claims import Claim, Spending
from fedaudit.core.client import ClientReturn, ClientStep, ClientTask, Loop
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import ModelSpec
from fedaudit.data.splits import Split
from fedaudit.defenses.accounting import Accountant, Spent, epsilon_of, noise_for, require_noise
from fedaudit.defenses.composition import Plan, noised_in_training, with_claim
from fedaudit.defenses.gradient_transforms import Noise, Replayed, clip
from fedaudit.defenses.on_photos import PER_IMAGE
from fedaudit.defenses.settings import public_settings, require
from fedaudit.models.dp_compatible import dp_compatible_spec, list_changes

if TYPE_CHECKING:
    from opacus import PrivacyEngine


@dataclass(frozen=True, kw_only=True)
class DPSGD:
    """Clip each image's gradient, add Gaussian noise (Abadi et al., CCS 2016, algorithm 1).

    arXiv 1607.00133, by Opacus' PrivacyEngine, with Poisson sampling. Batch norm and layers that
    overwrite their input, which have no per-sample gradients, are replaced for everybody
    (`fedaudit.models.dp_compatible`). FedSGD shares the noised gradient; in FedAvg every local step
    is clipped and noised.

    Guarantee: (ε, δ) for adding or removing one image. Beside each audited update stands the ε of
    that one round; that of the whole training is larger, and stands with its utility. Known to fail
    at weak noise: ε in the hundreds lets reconstructions through, and the guarantee is for an
    image, not for a person with many.

    Args:
        noise_multiplier: σ, in units of the clipping norm; ≥ 0. Without it and `epsilon`: 1.
        epsilon: ε of the whole planned training in place of σ: all rounds and local steps of
            [federation], at the sample rate of the client with the fewest photos. > 0. The least σ
            that suffices is used everywhere; a single audited round then spends less, or more where
            its batch is a larger share of the client's photos than the plan's.
        max_grad_norm: C, the clipping norm of one image's gradient (L2); > 0.
        delta: δ at which ε is stated; in (0, 1).
        accountant: "rdp" or "prv", which is tighter.
        ghost: Clip by per-sample norms alone (ghost clipping, Li et al., ICLR 2022, arXiv
            2110.05679): the same update up to rounding, less memory, two backward passes.
        steps: Steps over which `epsilon` is spent; the study's plan if not given.
        sample_rate: Share of the images in a step, with `epsilon`; the plan's if not given.
    """

    noise_multiplier: float | None = None
    epsilon: float | None = None
    max_grad_norm: float = 1.0
    delta: float = 1e-5
    accountant: Accountant = "rdp"
    ghost: bool = False
    steps: int | None = None
    sample_rate: float | None = None

    def __post_init__(self) -> None:
        if self.noise_multiplier is None and self.epsilon is None:
            object.__setattr__(self, "noise_multiplier", 1.0)
        require_noise(self.noise_multiplier, self.epsilon, self.delta, self.accountant)
        require(self.max_grad_norm > 0, "max_grad_norm must be > 0", self.max_grad_norm)
        require(self.steps is None or self.steps >= 1, "steps must be ≥ 1", self.steps)
        require(
            self.sample_rate is None or 0 < self.sample_rate <= 1,
            "sample_rate must lie in (0, 1]",
            self.sample_rate,
        )

    def __call__(self, step: ClientStep) -> ClientStep:
        """Run the client's training under a PrivacyEngine."""
        from opacus import PrivacyEngine  # noqa: PLC0415 - slow

        def private_step(task: ClientTask) -> ClientReturn:
            size, training = min(task.training.batch_size, len(task.images)), task.training
            rate = 1 / math.ceil(len(task.images) / size)
            sigma = self.sigma(training.steps, rate)
            engines: list[PrivacyEngine] = []

            def prepare(loop: Loop) -> Loop:
                engines.append(PrivacyEngine(accountant=self.accountant))
                return self._private(engines[-1], loop, task, sigma)

            with warnings.catch_warnings():
                # Opacus warns that its noise is not from a secure source: right for an audit, whose
                # runs must be repeatable, and that hooks fire on inputs without gradients.
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("ignore", FutureWarning)
                reply = step(replace(task, prepare=prepare))
            history = tuple(one for engine in engines for one in engine.accountant.history)
            return with_claim(reply, self._claim(reply, sigma, history)) if engines else reply

        return private_step

    def sigma(self, steps: int = 1, sample_rate: float = 1.0) -> float:
        """The noise multiplier; for a stated ε without a plan, of this many steps."""
        if self.epsilon is None:
            return float(self.noise_multiplier or 0)
        steps, rate = self.steps or steps, self.sample_rate or sample_rate
        return noise_for(
            self.epsilon, self.delta, steps=steps, sample_rate=rate, accountant=self.accountant
        )

    def planned(self, plan: Plan) -> "DPSGD":
        """The same defense; with `epsilon`, its noise is set by the planned steps and rounds."""
        if self.epsilon is None:
            return self
        steps, rate = plan.rounds * plan.steps, plan.sample_rate
        return replace(
            self, steps=self.steps or max(1, steps), sample_rate=self.sample_rate or rate
        )

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with group norm for batch norm, and without layers that overwrite."""
        return dp_compatible_spec(spec)

    def notes(self, spec: ModelSpec) -> tuple[str, ...]:
        """What replacing layers for DP-SGD changes in the network of `spec`."""
        return list_changes(spec).sentences()

    keeps_claims = True
    facts = public_settings("dpsgd")

    def replay(self, count: int) -> Replayed:
        """One step on an attacker's gradients: each image's is clipped, the mean is noised."""
        noise = Noise(self.sigma() * self.max_grad_norm / count)
        return Replayed(each=(clip(self.max_grad_norm),), mean=(noise,))

    def _private(self, engine: "PrivacyEngine", loop: Loop, task: ClientTask, sigma: float) -> Loop:
        from opacus.validators import ModuleValidator  # noqa: PLC0415 - slow

        if problems := ModuleValidator.validate(loop.network, strict=False):
            raise ConfigError(
                f"DP-SGD needs per-sample gradients, which this network does not allow: "
                f"{problems[0]}. Use a network with GroupNorm in place of BatchNorm."
            )
        parts = engine.make_private(
            module=loop.network,
            optimizer=loop.optimizer,
            criterion=_image_by_image(loop),
            data_loader=loop.loader,
            noise_multiplier=sigma,
            max_grad_norm=self.max_grad_norm,
            noise_generator=task.generator,
            grad_sample_mode="ghost" if self.ghost else "hooks",
        )
        if self.ghost:
            network, optimizer, criterion, loader = parts
            return Loop(network, optimizer, loader, criterion)
        network, optimizer, loader = parts
        return Loop(network, optimizer, loader, loop.criterion)

    def _claim(self, reply: ClientReturn, sigma: float, history: Spent) -> Claim:
        covers, gaps = noised_in_training(reply)
        rates = dict.fromkeys(f"{rate:.3g}" for _, rate, _ in history)
        return Claim(
            epsilon=epsilon_of(history, self.delta, self.accountant),
            delta=self.delta,
            unit=PER_IMAGE,
            neighbors="add or remove one",
            covers=covers,
            mechanism="DP-SGD",
            settings={"C": self.max_grad_norm, "σ": sigma},
            accountant=f"opacus {self.accountant}",
            sampling=f"Poisson sampling of images, q = {', '.join(rates)}",
            stage="training",
            spendings=tuple(
                Spending("gaussian", steps, noise, rate) for noise, rate, steps in history
            ),
        ).without(*gaps)


def _image_by_image(loop: Loop) -> object:
    """The loop's mean loss as Opacus' ghost clipping asks for it: one loss an image, `[N]`."""

    def one(scores: Tensor, label: Tensor) -> Tensor:
        loss: Tensor = loop.criterion(scores[None], label[None])
        return loss

    def losses(scores: Tensor, labels: Tensor) -> Tensor:
        if not len(scores):  # Poisson sampling drew nobody
            return scores.sum(1)
        each: Tensor = torch.func.vmap(one)(scores, labels)
        return each

    return losses

"""Differential privacy for a whole client, by noise on its own device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedaudit.core.claims import Claim, Spending
from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.observation import ModelSpec
from fedaudit.core.shared import Returns, Shared, Update, kind_of
from fedaudit.data.splits import Split
from fedaudit.defenses.accounting import (
    Accountant,
    epsilon_of,
    laplace_epsilon,
    laplace_noise_for,
    noise_for,
    require_noise,
)
from fedaudit.defenses.composition import Plan, releasing, with_claim
from fedaudit.defenses.gradient_transforms import Batch, Noise, Replayed, clip, in_order, norms
from fedaudit.defenses.settings import public_settings, require
from fedaudit.models.dp_compatible import dp_compatible_spec, list_changes


@dataclass(frozen=True)
class ClippedBit:
    """Whether an update was within the clipping norm, ± 1/2, with noise (Andrew et al. 2021).

    Attributes:
        value: `[1]`; its mean over clients + 1/2 estimates the share of them within the norm.
    """

    value: Tensor


@dataclass(frozen=True, kw_only=True)
class ClientDP:
    """Clip what a client sends in a round to one norm, and add noise before it leaves the device.

    DP-FedAvg's bound on a client's whole influence (McMahan et al., ICLR 2018, arXiv 1710.06963),
    with the noise on the device, as the server is the attacker. That costs far more utility than
    central noise: the mean of K clients has noise of z·C/√K in place of z·C/K. What a server that
    adds noise itself has seen is what `clipping` shows.

    With `quantile` the norm follows the quantile γ of the clients' norms (Andrew et al., NeurIPS
    2021, arXiv 1905.03871): each client also sends whether it was within C, with noise, and the
    server moves C to C·exp(−η(share within − γ)), for all to see. Update and bit together spend
    what z states. With few clients the share is mostly noise, and C wanders.

    All that a client sends of its model in a round is one vector. Batch norm, whose statistics
    would leave the device in clear, is replaced by group norm for everybody.

    Guarantee: (ε, δ) for replacing all data of one client, so that the update's sensitivity is 2C:
    "gaussian" by an RDP or PRV accountant; "laplace" has pure ε = 2/z a round, and composes by the
    better of basic and advanced composition. The number of images travels in clear, and so does
    what else a method shares (class embeddings, centers); the claim names it. Known to fail:
    with z well below 1 the direction of the update, and with it the photos, show through.

    Args:
        noise_multiplier: z; the noise's standard deviation ("gaussian") or scale b ("laplace") in
            units of C; ≥ 0. Without it and `epsilon`: 1.
        epsilon: ε of all rounds of [federation] in place of z; > 0.
        max_norm: C, or where it starts: largest norm of what is sent, over all parameters together,
            in units of what is sent (gradient, or change of the weights); L2 for "gaussian", L1 for
            "laplace"; > 0.
        mechanism: "gaussian" or "laplace". An L1 norm is up to √(number of parameters) times the
            L2 norm: Laplace noise drowns networks of any size.
        delta: δ at which ε is stated; in (0, 1).
        accountant: "rdp" or "prv", of "gaussian".
        quantile: γ in (0, 1); fixed clipping without it.
        rate: η, how fast C moves; > 0.
        bit_noise: Standard deviation or scale of the noise on the bit, in units of z; > 1/2, where
            the bit alone would spend everything. At 1, "gaussian" noise on the update is 15 %
            larger than z, and "laplace" noise twice as large.
        rounds: Rounds over which `epsilon` is spent; the study's if not given.
    """

    noise_multiplier: float | None = None
    epsilon: float | None = None
    max_norm: float = 1.0
    mechanism: Literal["gaussian", "laplace"] = "gaussian"
    delta: float = 1e-5
    accountant: Accountant = "rdp"
    quantile: float | None = None
    rate: float = 0.2
    bit_noise: float = 1.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        if self.noise_multiplier is None and self.epsilon is None:
            object.__setattr__(self, "noise_multiplier", 1.0)
        require_noise(self.noise_multiplier, self.epsilon, self.delta, self.accountant)
        require(self.max_norm > 0, "max_norm must be > 0", self.max_norm)
        require(self.rate > 0, "rate must be > 0", self.rate)
        is_mechanism = self.mechanism in ("gaussian", "laplace")
        require(is_mechanism, "mechanism must be 'gaussian' or 'laplace'", repr(self.mechanism))
        require(
            self.quantile is None or 0 < self.quantile < 1,
            "quantile must lie in (0, 1)",
            self.quantile,
        )
        require(self.rounds is None or self.rounds >= 1, "rounds must be ≥ 1", self.rounds)
        require(self.bit_noise > 0.5, "bit_noise must be > 0.5", self.bit_noise)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Clip and noise what the step shares."""

        def private_step(task: ClientTask) -> ClientReturn:
            reply = step(task)
            # Everything in one vector, so that C bounds all of it.
            flat: Batch = {
                f"{number}/{name}": value[None]
                for number, payload in enumerate(reply.shared)
                if isinstance(payload, Update)
                for name, value in payload.tensors.items()
            }
            if not flat:
                return reply
            rows = in_order(self.replay(1).mean, flat, task.generator)
            shared: list[Shared] = [
                replace(payload, tensors={n: rows[f"{number}/{n}"][0] for n in payload.tensors})
                if isinstance(payload, Update)
                else payload
                for number, payload in enumerate(reply.shared)
            ]
            noisy, claim = replace(reply, shared=tuple(shared)), self.claim
            if self.quantile is not None:
                bit = ClippedBit(self.bit(norms(flat, self.order), task.generator))
                noisy, claim = releasing(noisy, bit), claim.covering(kind_of(bit))
            return with_claim(noisy, claim)

        return private_step

    @property
    def order(self) -> Literal[1, 2]:
        """Order p of the Lp norm that is clipped: 1 for Laplace noise, 2 for Gaussian."""
        return 1 if self.mechanism == "laplace" else 2

    @property
    def noise(self) -> float:
        """Noise multiplier z of update and bit together; without a plan, that of one round."""
        if self.epsilon is None:
            return float(self.noise_multiplier or 0)
        rounds = self.rounds or 1
        if self.mechanism == "laplace":
            return 2 * laplace_noise_for(self.epsilon, self.delta, rounds)
        return 2 * noise_for(self.epsilon, self.delta, steps=rounds, accountant=self.accountant)

    @property
    def noises(self) -> tuple[float, float]:
        """Noise of the update in units of the clipping norm C, and noise of the bit.

        Of Gaussian mechanisms (sensitivity/σ)² adds up, of Laplace mechanisms sensitivity/b. The
        update moves by 2C where the bit moves by 1, and both together are to spend 2/z.
        """
        left = 1.0 if self.quantile is None else 1 - (2 * self.bit_noise) ** -self.order
        return self.noise * left ** (-1 / self.order), self.noise * self.bit_noise

    def bit(self, norm: Tensor, generator: torch.Generator) -> Tensor:
        """The noised bit `[1]` of an update of norm `[1]`."""
        within = (norm <= self.max_norm).float() - 0.5
        noise = Noise(self._std(self.noises[1]), law=self.mechanism)
        return noise({"bit": within[:, None]}, generator)["bit"][:, 0]

    def at(self, public: Mapping[str, Tensor]) -> "ClientDP":
        """The same defense with the clipping norm that the server published for this round."""
        return replace(self, max_norm=float(public["max_norm"]))

    def after(self, returns: Returns) -> dict[str, Tensor]:
        """The norm of the next round, from the clients' bits; {} where it is fixed."""
        bits = [s.value for shared in returns for s in shared if isinstance(s, ClippedBit)]
        if self.quantile is None:
            return {}
        share = float(torch.cat(bits).mean()) + 0.5 if bits else self.quantile
        max_norm = self.max_norm * math.exp(-self.rate * (share - self.quantile))
        return {"max_norm": torch.tensor(max_norm, dtype=torch.float64)}

    def planned(self, plan: Plan) -> "ClientDP":
        """The same defense; with `epsilon`, its noise is set by the planned number of rounds."""
        if self.epsilon is None or self.rounds is not None:
            return self
        return replace(self, rounds=max(1, plan.rounds))

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with group norm for batch norm."""
        return dp_compatible_spec(spec)

    def notes(self, spec: ModelSpec) -> tuple[str, ...]:
        """What replacing batch norm changes in the network of `spec`."""
        return list_changes(spec).sentences()

    def replay(self, count: int) -> Replayed:
        """Clipping and noise on an attacker's gradients, with noise of its own."""
        noise = Noise(self._std(self.noises[0]) * self.max_norm, law=self.mechanism)
        return Replayed(mean=(clip(self.max_norm, self.order), noise))

    keeps_claims = True
    facts = public_settings("client_dp")

    def _std(self, noise: float) -> float:
        return noise * math.sqrt(2) if self.mechanism == "laplace" else noise

    @property
    def claim(self) -> Claim:
        """The guarantee of one round, of all updates that the client sends."""
        noise, delta = self.noise, self.delta
        if self.mechanism == "laplace":
            epsilon, delta = laplace_epsilon(noise / 2, delta, 1)
            accountant = "pure DP, better of basic and advanced composition"
        else:
            epsilon = epsilon_of(((noise / 2, 1.0, 1),), delta, self.accountant)
            accountant = f"opacus {self.accountant}"
        settings: dict[str, float | str] = {"z": noise, f"C (L{self.order})": self.max_norm}
        if self.quantile is not None:
            settings["adaptive to the quantile"] = self.quantile
        return Claim(
            epsilon=epsilon,
            delta=delta,
            unit="client",
            neighbors="replace one",
            covers=("update",),
            mechanism=f"{self.mechanism} noise on the device",
            settings=settings,
            accountant=accountant,
            sampling="every client takes part in every round",
            spendings=(Spending(self.mechanism, 1, noise / 2, delta=self.delta),),
        )

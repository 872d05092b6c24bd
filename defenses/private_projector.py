"""Private projector: only the public module is shared (Ding et al. 2022, arXiv 2206.13398)."""

from dataclasses import dataclass

from fedaudit.core.choices import check_choices
from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.local_layers import keeping, require_prefixes


@dataclass(frozen=True, kw_only=True)
class PrivateProjector:
    """Each device appends a projector that it never shares; only the public module travels.

    Ding et al. (2022, arXiv 2206.13398). The whole model is trained locally. The projector here is
    the embedding layer and the head: everything after the last convolution. Guarantee: none, it is
    a heuristic. The public module's update still depends on the photos.

    Args:
        private: Prefixes of the parameter names that stay on the device.
    """

    private: tuple[str, ...] = ("embedding.", "head.")

    def __post_init__(self) -> None:
        check_choices(self)
        require_prefixes(self.private)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Train everything, share the public module."""
        return keeping(step, self.private)

    keeps_claims = True

    def facts(self) -> DefenseFacts:
        """The attacker knows which part is private, not its parameters."""
        return DefenseFacts("private_projector", {"private": self.private}, self.private)

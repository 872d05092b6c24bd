"""Layers that never leave the device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedaudit.core.choices import check_choices
from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import DefenseFacts

HEAD = "head."


@dataclass(frozen=True, kw_only=True)
class LocalLayers:
    """Each client trains the whole network and keeps some layers to itself.

    FedPer (Arivazhagan et al. 2019, arXiv 1912.00818) keeps the last layers: `("head.",)`, the
    default, or `("embedding.", "head.")`. LG-FedAvg (Liang et al. 2020, arXiv 2001.01523) keeps the
    first ones, the representation: `("body.",)`. Both are made for clients whose data differ, not
    for privacy. A head that stays has the client's own people only. Utility is measured on every
    client's own network, and the mean reported, where more than the head is its own. Guarantee:
    none, it is a heuristic: what is shared is as exact as ever, and attacks solve for a private
    head with the photos. What the first fully connected layer gives away needs none of the layers
    behind it.

    Args:
        private: Prefixes of the parameter names that stay on the device.
    """

    private: tuple[str, ...] = (HEAD,)

    def __post_init__(self) -> None:
        check_choices(self)
        require_prefixes(self.private)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Train everything, share the rest."""
        return keeping(step, self.private)

    keeps_claims = True

    def facts(self) -> DefenseFacts:
        """The attacker knows which layers are private, not their parameters."""
        private = tuple(self.private)
        return DefenseFacts("local_layers", {"private": private}, private)


def require_prefixes(private: Sequence[str]) -> None:
    """Refuse a defense that keeps nothing, or everything by an empty prefix."""
    if not private or not all(private):
        raise ValueError("private must name at least one parameter prefix, such as 'head.'")


def keeping(step: ClientStep, private: Sequence[str]) -> ClientStep:
    """The client's step, of which the parameters whose names begin with `private` are not shared.

    It refuses a network without such parameters.
    """
    prefixes = tuple(private)

    def private_step(task: ClientTask) -> ClientReturn:
        reply = step(replace(task, withheld=(*task.withheld, *prefixes)))
        has_local = any(name.startswith(prefixes) for name in reply.kept)
        if not has_local and prefixes != (HEAD,):  # methods without labels have no head to keep
            raise ConfigError(
                f"no parameter of the network begins with {' or '.join(map(repr, prefixes))}, so "
                "nothing would stay on the device. Face networks have body., embedding. and head.; "
                "write one of these as private."
            )
        return reply

    return private_step

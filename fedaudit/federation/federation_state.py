"""What a federation holds between two rounds: the server, each client's device, what is public."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class State:
    """A federation between two rounds.

    Attributes:
        server: What the server holds: parameters, the running statistics of batch norm, and what
            the method keeps besides, by name. All of it is broadcast unless the method says what
            each client receives.
        kept: Parameters that each client keeps on its device, by client number.
        memory: What each client's defenses remember on its device.
        public: What the server has published of the defenses' settings (`together.published`).
    """

    server: Mapping[str, Tensor]
    kept: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    memory: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    public: Mapping[str, Tensor] = field(default_factory=dict)

    def flat(self) -> dict[str, Tensor]:
        """One mapping: `server/NAME`, `public/NAME`, `client-K/NAME` and `memory-K/NAME`."""
        flat = {f"server/{name}": value for name, value in self.server.items()}
        flat |= {f"public/{name}": value for name, value in self.public.items()}
        for kind, members in (("client", self.kept), ("memory", self.memory)):
            for client, tensors in members.items():
                flat |= {f"{kind}-{client}/{name}": value for name, value in tensors.items()}
        return flat

    @staticmethod
    def from_flat(tensors: Mapping[str, Tensor]) -> "State":
        """The inverse of `flat`."""
        own: dict[str, dict[str, Tensor]] = {"server": {}, "public": {}}
        members: dict[str, dict[int, dict[str, Tensor]]] = {"client": {}, "memory": {}}
        for key, value in tensors.items():
            owner, _, name = key.partition("/")
            if owner in own:
                own[owner][name] = value
            else:
                kind, _, client = owner.partition("-")
                members[kind].setdefault(int(client), {})[name] = value
        return State(own["server"], members["client"], members["memory"], own["public"])

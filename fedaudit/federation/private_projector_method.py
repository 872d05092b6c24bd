"""Private projector for AIoT: a public module is averaged, the rest is each device's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import ModelSpec
from fedaudit.defenses.private_projector import PrivateProjector
from fedaudit.defenses.settings import require
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.pretraining import pretrain


@dataclass(frozen=True, kw_only=True)
class PrivateProjectorMethod:
    """Devices append a private projector to a pre-trained public module and share that module only.

    Ding et al. (2022, arXiv 2206.13398). The whole model is trained locally; the public module's
    weights are averaged. Everything from the embedding on is the projector here
    (`fedaudit.defenses.private_projector.PrivateProjector` does the withholding). The paper's
    rating of the quality of features by the projector is left out: nothing of it is shared.

    Shared: the weight delta of the public module, and the number of images.

    Args:
        private: Prefixes of the parameter names that stay on the device.
        public: Registered face set for the pre-training. Invented people of controls are made of
            OpenPeople's; reports say so.
        pretrain_steps: Steps of pre-training; 0 starts at random.
    """

    private: tuple[str, ...] = ("embedding.", "head.")
    public: str = "openpeople"
    pretrain_steps: int = 300

    def __post_init__(self) -> None:
        PrivateProjector(private=self.private)  # refuses what the defense refuses
        require(self.pretrain_steps >= 0, "pretrain_steps must be ≥ 0", self.pretrain_steps)

    @property
    def withheld(self) -> tuple[str, ...]:
        """Parameter prefix of the projector, which stays on the device."""
        return tuple(self.private)

    def start(self, spec: ModelSpec, server: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """A public module trained on public faces, with a projector that is thrown away."""
        return pretrain(spec, server, public=self.public, steps=self.pretrain_steps, seed=seed)

    def client(self, task: ClientTask) -> ClientReturn:
        """Train everything, share the public module's delta."""
        return PrivateProjector(private=self.private)(train_locally)(task)

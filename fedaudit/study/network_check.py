"""Can each network of a study be built, and take the steps that its scenarios make?"""

from torch import nn

from fedaudit.core.errors import ConfigError, FedauditError, first_line
from fedaudit.core.observation import ModelSpec
from fedaudit.core.scenario import Choice, Scenario
from fedaudit.models.batch_norm import batch_norm_layers, values_per_channel
from fedaudit.models.build_network import build
from fedaudit.models.derivatives import check_differentiable
from fedaudit.models.named_network import is_foreign

TRIED_CLASSES = 7
"""Classes of a network that is built for nothing but to see whether it can be."""


class NetworkChecks:
    """Builds and tries each network of a study once, however many scenarios use it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tried: set[str] = set()
        self._starved: dict[str, str | None] = {}

    def check(self, scenario: Scenario) -> None:
        """Refuse a network that cannot be built, or that cannot take the scenario's steps."""
        network = scenario.network
        key = f"{network.name} {sorted(network.settings.items())}"
        if is_foreign(network.name) and key not in self._tried:
            self._try(network)
            self._tried.add(key)
        training = scenario.audited_training
        if training.batch_norm == "eval" or min(training.batch_size, scenario.batch_size) > 1:
            return
        if key not in self._starved:
            self._starved[key] = self._starved_layer(network)
        if layer := self._starved[key]:
            raise ConfigError(
                f"batch norm {layer!r} in training mode cannot take one image, of which it sees "
                f"one value a channel, and a step has batch_size = {training.batch_size}. Write "
                'batch_norm = "eval", or batch_size = 2 or more.'
            )

    def _build(self, network: Choice) -> nn.Module:
        arguments = {**network.settings, "image_size": self.size, "classes": TRIED_CLASSES}
        return build(ModelSpec(network.name, arguments))

    def _try(self, network: Choice) -> None:
        """Build a network that is not ours, and try it on images of the study's size."""
        try:
            model = self._build(network)
        except FedauditError:
            raise
        except Exception as error:  # a stranger's factory raises whatever it likes
            raise ConfigError(
                f"{network.name} cannot be built: {type(error).__name__}: {first_line(error)}. It "
                f"is called with classes = {TRIED_CLASSES} and image_size = {self.size}, as far "
                "as it takes them."
            ) from error
        check_differentiable(model, (3, self.size, self.size))

    def _starved_layer(self, network: Choice) -> str | None:
        """The first batch norm that sees one value a channel of one image, if any does."""
        model = self._build(network)
        if not batch_norm_layers(model):
            return None
        counts = values_per_channel(model, (3, self.size, self.size))
        return next((name for name, count in counts.items() if count == 1), None)

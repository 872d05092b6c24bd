"""The undefended client, so that it stands in every table beside the others."""

from dataclasses import dataclass

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts


@dataclass(frozen=True, kw_only=True)
class NoDefense:
    """No defense: the update is shared as it is. Guarantee: none."""

    def __call__(self, step: ClientStep) -> ClientStep:
        """The step itself."""
        return step

    def facts(self) -> DefenseFacts:
        """Known to be none."""
        return DefenseFacts("none", {})

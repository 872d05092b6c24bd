"""The undefended client, so that it stands in every table beside the others."""

from dataclasses import dataclass

from fedaudit.defenses.settings import pass_on, public_settings


@dataclass(frozen=True, kw_only=True)
class NoDefense:
    """No defense: the update is shared as it is. Guarantee: none."""

    __call__ = pass_on
    keeps_claims = True
    facts = public_settings("none")

"""What frameworks ship to protect updates: how each is called in files, and who judges it."""

from collections.abc import Callable
from dataclasses import dataclass

from fedaudit.captures.claims import flower_protections as flower
from fedaudit.captures.claims import nvflare_filters as nvflare
from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.opacus_engine import make_private
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism

Judge = Callable[[StatedMechanism, RunSize], ClaimVerdict]


@dataclass(frozen=True)
class Protection:
    """An entry of the catalog.

    Attributes:
        framework: That ships it.
        positions: Its parameters, in the order in which a call may give them without names.
        judge: Works its numbers out.
        function: Whether files name it without calling it, as Flower's modifiers.
    """

    framework: str
    positions: tuple[str, ...]
    judge: Judge
    function: bool = False


_FIXED = ("strategy", "noise_multiplier", "clipping_norm", "num_sampled_clients")
_ADAPTIVE = (
    *("strategy", "noise_multiplier", "num_sampled_clients", "initial_clipping_norm"),
    *("target_clipped_quantile", "clip_norm_lr", "clipped_count_stddev"),
)
CATALOG = {
    "LocalDpMod": Protection(
        "Flower", ("clipping_norm", "sensitivity", "epsilon", "delta"), flower.local_dp
    ),
    "fixedclipping_mod": Protection("Flower", (), flower.clipping_mod, function=True),
    "adaptiveclipping_mod": Protection("Flower", (), flower.clipping_mod, function=True),
    "secaggplus_mod": Protection("Flower", (), flower.secagg, function=True),
    "DifferentialPrivacyServerSideFixedClipping": Protection("Flower", _FIXED, flower.central_dp),
    "DifferentialPrivacyClientSideFixedClipping": Protection("Flower", _FIXED, flower.central_dp),
    "DifferentialPrivacyServerSideAdaptiveClipping": Protection(
        "Flower", _ADAPTIVE, flower.central_dp
    ),
    "DifferentialPrivacyClientSideAdaptiveClipping": Protection(
        "Flower", _ADAPTIVE, flower.central_dp
    ),
    "SVTPrivacy": Protection(
        "NVFlare",
        ("fraction", "epsilon", "noise_var", "gamma", "tau", "data_kinds", "replace"),
        nvflare.svt_privacy,
    ),
    "PercentilePrivacy": Protection(
        "NVFlare", ("percentile", "gamma", "data_kinds"), nvflare.percentile_privacy
    ),
    "ExcludeVars": Protection("NVFlare", ("exclude_vars", "data_kinds"), nvflare.exclude_vars),
    "HEModelEncryptor": Protection(
        "NVFlare", ("tenseal_context_file", "encrypt_layers"), nvflare.homomorphic_encryption
    ),
    "make_private": Protection("Opacus", (), make_private),
    "make_private_with_epsilon": Protection("Opacus", (), make_private),
}
"""By the name of the class or function."""


def judge(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """What becomes of a stated mechanism; one that is not in the catalog is not tested."""
    entry = CATALOG.get(stated.name)
    return (entry.judge if entry else nvflare.other_filter)(stated, run)

"""How much each layer counts among the spans of all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedaudit.attacks.evidence.layer_spans import LayerSpan

TRUST = 0.5
"""Power of the expected misfit by which layers are weighed. Sixteen photos of p01 and p02 after two
epochs of mini-batches have SSIM 0.67, 12 of 16 first of ten; with 0 they have 0.51 and 8
(benchmarks/subspace.py --only "ResNet-18 two epochs" --batch 16 --people p01 p02 --targets 1 --set
attacks.evidence.layer_trust.TRUST=0)."""


def trusted(spans: Sequence[LayerSpan], misfit: Mapping[str, float]) -> tuple[LayerSpan, ...]:
    """The spans, those weighed less that the true images miss by more (`simulated_misfit`).

    Args:
        spans: Of layers.
        misfit: Mean squared sine that is expected of the true images, by weight; {} trusts all.
    """
    if not misfit or not spans:
        return tuple(spans)
    usual = sorted(misfit.values())[len(misfit) // 2]
    trust = [misfit.get(span.name, usual) ** -TRUST for span in spans]
    mean = sum(trust) / len(trust)
    return tuple(replace(s, trust=t / mean) for s, t in zip(spans, trust, strict=True))


def alike_by_direction(spans: Sequence[LayerSpan]) -> tuple[LayerSpan, ...]:
    """The spans, weighed so that each direction counts alike, in whichever layer it is.

    For spans that noise of one relative size in all layers blurs, as that of signs is. A photo of
    p01 and four, one step of Adam, ResNet-18 at 64 px: SSIM 0.56 and 0.58 by layers alike, 0.67 and
    0.62 so.
    """
    if not spans:
        return ()
    said = [float(span.weights.sum()) for span in spans]
    mean = sum(said) / len(said)
    return tuple(replace(s, trust=one / mean) for s, one in zip(spans, said, strict=True))

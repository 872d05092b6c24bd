"""When a stage of a search is left out, by how far those before it came from what inputs span."""

from fedaudit.attacks.search.scene import StageResult
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.span_mending import ANEW_BELOW, BURIED, HOPELESS, is_worth_mending
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.pixels import ANEW, FINER, MENDED, OTHER_NOISE


def is_left_out(stage: Stage, before: StageResult, spans: SpanMatching | None) -> bool:
    """Whether a stage has nothing to do with the images that those before it ended with.

    Args:
        stage: The stage that is next.
        before: Where those before it ended.
        spans: What layers' inputs span; None where nothing is searched by that.
    """
    if isinstance(stage.varies, CosineSpectrum):
        return _waves_are_left_out(stage, stage.varies.start, before, spans)
    if stage.varies == MENDED:
        return not is_stuck(before, spans)
    if stage.varies == OTHER_NOISE:
        return not misses(before, HOPELESS, spans) or misses(before, BURIED, spans)
    if stage.varies == ANEW:
        return not is_stuck(before, spans) or misses(before, ANEW_BELOW, spans)
    if stage.varies == FINER:
        return before.varied != ANEW
    return False


def _waves_are_left_out(
    stage: Stage, start: str, before: StageResult, spans: SpanMatching | None
) -> bool:
    """Whether noise buries the images, or nothing has begun anew, or has to."""
    if start == "normal" and not stage.if_missed:
        return False
    if stage.held_variation:  # of updates without noise: what is that far off is not buried
        begun = start == "normal" or isinstance(before.varied, CosineSpectrum)
        return not (begun and misses(before, stage.if_missed, spans))
    if start == "previous" and stage.if_missed:
        return not misses(before, stage.if_missed, spans)
    if misses(before, BURIED, spans):
        return True
    if start in ("normal", "reordered"):
        return not misses(before, stage.if_missed, spans)
    begun = isinstance(before.varied, CosineSpectrum) and before.varied.start == "normal"
    return start == "last" and not begun


def misses(before: StageResult, distance: float, spans: SpanMatching | None) -> bool:
    """Whether every restart's images are farther from the spans than that."""
    return spans is not None and all(spans.distance(i) >= distance for i in before.images)


def is_stuck(before: StageResult, spans: SpanMatching | None) -> bool:
    """Whether any restart's images are worth mending."""
    assert spans is not None
    return any(is_worth_mending(spans, images) for images in before.images)

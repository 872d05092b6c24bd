"""All registered metrics of images: what they say of themselves, and their values."""

from collections.abc import Iterable
from math import isfinite

from torch import Tensor

from fedaudit.core import registry
from fedaudit.core.errors import ConfigError
from fedaudit.core.measures import MetricFacts
from fedaudit.core.protocols import Metric


def declarations(names: Iterable[str] | None = None) -> tuple[MetricFacts, ...]:
    """What metrics say of themselves, in the order in which they are shown.

    Args:
        names: Of the metrics that are wanted; all registered ones by default. One that is no longer
            registered has its name alone.
    """
    registered_names = registry.names("metrics")
    order = registered_names if names is None else tuple(dict.fromkeys(names))
    metrics = [(_metric(name) if name in registered_names else None, name) for name in order]
    return tuple(
        _facts(name, metric)
        for metric, name in sorted(metrics, key=lambda e: (getattr(e[0], "order", 1000), e[1]))
    )


def measure(original: Tensor, other: Tensor) -> list[dict[str, float]]:
    """Every registered metric of each pair of images, `[N, C, H, W]` in [0, 1] each.

    Raises:
        ConfigError: A metric does not return one number an image.
    """
    values: dict[str, list[float]] = {}
    for facts in declarations():
        result = _metric(facts.name)(original, other)
        if result.shape != original.shape[:1]:
            raise ConfigError(
                f"the metric {facts.name!r} returned shape {list(result.shape)} for "
                f"{len(original)} images. It must return one number an image: [N]."
            )
        values[facts.name] = result.tolist()
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _metric(name: str) -> Metric:
    metric: Metric = registry.create("metrics", name, {})
    return metric


def _facts(name: str, metric: Metric | None) -> MetricFacts:
    if metric is None:
        return MetricFacts(name, name, True, "", None, None)
    low, high = (bound if isfinite(bound) else None for bound in metric.range)
    title, digits = getattr(metric, "title", name), getattr(metric, "digits", 2)
    return MetricFacts(name, title, metric.higher_is_better, metric.unit, low, high, digits)

"""The identity ceiling: what a judge recognizes of the originals themselves."""

from collections.abc import Mapping
from dataclasses import replace

from fedaudit.core.scenario import Study
from fedaudit.reports.results import Ceiling, Control
from fedaudit.reports.verdicts import rate_text
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals

BLIND = (
    ": a judge that does not know the originals sees no leak. Its weights may have been altered "
    "(fetch them again, and run with another --output); else the photos are too small or too "
    "blurred: raise size, or lower ceiling_floor and take a low rate for little evidence"
)
"""What a failed identity ceiling means, and what to do."""


def ceilings(
    study: Study, galleries: Mapping[str, Gallery | None], judge: str = ""
) -> tuple[Ceiling, ...]:
    """What a judge (the first unless named) recognizes of the originals.

    No attack can be seen to do better. One line for all scenarios, or one each where their
    federations leave different galleries.
    """
    judge = judge or study.judges[0].label
    ceilings = [_ceiling(study, name, known) for name, known in galleries.items() if known]
    lines = [replace(line, judge=judge) for line in ceilings if line]
    if len({replace(line, scenario="all") for line in lines}) == 1:
        return (replace(lines[0], scenario="all"),)
    return tuple(lines)


def _ceiling(study: Study, scenario: str, gallery: Gallery) -> Ceiling | None:
    if gallery.threshold is None:
        return None
    rates = gallery.rates
    return Ceiling(
        scenario=scenario,
        image_size=study.size,
        reid=rates.reidentified
        if rates
        else intervals.rate_of(gallery.ceiling_hits, gallery.ceiling_n, "photos"),
        rank1=rates.first
        if rates
        else intervals.rate_of(gallery.ceiling_first, gallery.ceiling_n, "photos"),
        threshold=gallery.threshold,
        fmr=gallery.fmr,
        impostor_pairs=gallery.impostor_pairs,
        gallery_people=gallery.candidates,
        gallery_photos=gallery.photos,
    )


def known_originals(study: Study, lines: tuple[Ceiling, ...]) -> tuple[Control, ...]:
    """Whether the judge knows the originals: one that does not would find no leak anywhere."""
    name = "identity ceiling (the originals themselves, re-identified)"
    requirement = f"at least {study.ceiling_floor:.0%} of them (ceiling_floor)".replace("%", " %")
    if not lines:
        return (Control(name, "all", "not run", requirement, None),)
    return tuple(
        Control(
            name,
            line.scenario,
            rate_text(line.reid) + ("" if success else BLIND),
            requirement,
            success,
        )
        for line in lines
        for success in [line.reid.value >= study.ceiling_floor]
    )

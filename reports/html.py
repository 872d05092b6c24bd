"""The report as one HTML file: a pure function of results, pictures and evidence level."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fedaudit.core.measures import Evidence
from fedaudit.reports import charts, standards, text, view
from fedaudit.reports.annex import annex
from fedaudit.reports.contrast_figure import contrasts
from fedaudit.reports.explanation_figures import figures as explanation_figures
from fedaudit.reports.explanation_wording import findings as explanation_findings
from fedaudit.reports.exposure_figure import exposure_map
from fedaudit.reports.figures import Figure, state
from fedaudit.reports.frontier import frontier
from fedaudit.reports.glossary import GLOSSARY, link_terms
from fedaudit.reports.identity_score_figure import scores
from fedaudit.reports.image_words import page_of_images
from fedaudit.reports.league import league
from fedaudit.reports.membership_figure import membership_curves
from fedaudit.reports.membership_lines import unlabeled_properties
from fedaudit.reports.model_state_figure import model_states
from fedaudit.reports.pictures import Picture, Strip, Trio, strips, trios, worst_pair
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.recorded_card import recorded_card
from fedaudit.reports.reference_scale import scale
from fedaudit.reports.reidentification_figure import reidentification
from fedaudit.reports.results import EvidenceMatrix, EvidenceRow, Results
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.reports.shown_lines import privacy_lines, shown_curve
from fedaudit.reports.sweeps import setting_curves

_TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("gallery.js", "league.js", "matrix.js")
LIST_SCRIPTS = ("gallery.js",)
SECTIONS = (
    ("verdict", "Verdict"),
    ("recorded", "What explains the updates"),
    ("defenses", "Defenses"),
    ("evidence", "Evidence"),
    ("exposure", "What gives the face away"),
    ("findings", "Findings"),
    ("coverage", "Coverage"),
    ("controls", "Controls"),
    ("privacy", "Who is in the data, and ε"),
    ("figures", "Figures"),
    ("comparison", "All comparisons"),
    ("why", "Why it leaks"),
    ("method", "Threat model and method"),
    ("annex", "Compliance annex"),
    ("limitations", "Limitations"),
    ("provenance", "Provenance"),
    ("glossary", "Glossary"),
)


def render(
    results: Results,
    pictures: Mapping[tuple[str, int], Picture] | None,
    evidence: Evidence,
    absent: str = "",
) -> str:
    """The complete page. Same arguments, same bytes.

    Args:
        results: Contents of `results.json`.
        pictures: By (cell key, image index). Looked at only under full evidence.
        evidence: "none" shows no gallery, "redacted" its numbers, "full" the faces.
        absent: Why there are no pictures to show, whatever `evidence` is; "" where there are.
    """
    digest = sha256(canonical_bytes(results)).hexdigest()
    full = evidence == "full" and pictures is not None
    faces = trios(results.exhibits, pictures) if full and pictures else ()
    worst = worst_pair(results, pictures) if full and pictures else None
    rows = strips(results.matrices, pictures) if full and pictures else ()
    cleaned = text.clean(results)
    with charts.unchecked():
        svgs, exposure = figures(cleaned), exposure_map(cleaned)
        privacy = privacy_figures(cleaned)
        why_drawn = explanation_figures(cleaned.explanation) if cleaned.explanation else {}
    why = cleaned.explanation
    headline, worst_row = view.headline_row(cleaned), view.worst_row(cleaned)
    card = recorded_card(cleaned)
    content = {
        "recorded": card,
        "absent": text.visible(absent),
        "why": why,
        "why_findings": explanation_findings(why) if why else (),
        "why_figures": why_drawn,
        "r": cleaned,
        "exhibits": _exhibits(cleaned, faces),
        "matrices": _matrices(cleaned, rows),
        "worst": worst,
        "figures": svgs,
        "privacy_lines": privacy_lines(cleaned),
        "privacy_figures": privacy,
        "unlabeled": unlabeled_properties(cleaned.membership),
        "open_figure": "frontier",
        "exposure": exposure,
        "league": league(cleaned),
        "version": cleaned.provenance.fedaudit,
        "schema": f"results schema {cleaned.schema_version}",
        "source": "provenance",
        "headline": headline,
        "scale": scale(cleaned, headline),
        "worst_row": worst_row,
        "worst_threshold": view.threshold(cleaned, worst_row.scenario) if worst_row else None,
        "attacks_run": view.attacks_run(cleaned),
        "attacks_table": view.attacks_table(cleaned),
        "defenses_table": view.defenses_table(cleaned),
        "exposure_table": view.exposure_table(cleaned),
        "states": view.states_of(cleaned),
        "judged": view.judged(cleaned),
        "lead": view.lead(cleaned.headline.sentence),
        "not_shown": view.not_shown(cleaned, headline),
        "next_steps": view.next_steps(cleaned),
        "signing": view.signing(cleaned),
        "controls_held": view.controls_held(cleaned),
        "annex": annex(cleaned),
        "glossary": GLOSSARY,
        "causes": view.causes(cleaned),
        "counts": view.counts(cleaned),
        "interval_methods": view.intervals(cleaned),
    }
    script = _script(SCRIPTS)
    asked_for = {"why": bool(why), "recorded": card is not None, "privacy": bool(privacy)}
    sections = [s for s in SECTIONS if asked_for.get(s[0], True)]
    drawn_page = page(
        "report.html", content, sections, evidence=evidence, digest=digest, script=script
    )
    if cleaned.subject == "images":
        drawn_page = page_of_images(drawn_page, cleaned)
    return text.unbroken(link_terms(drawn_page))


def _script(names: Sequence[str]) -> str:
    return "\n".join((_TEMPLATES / name).read_text("utf-8") for name in names)


def scripts() -> tuple[str, ...]:
    """All that ever runs on a page: the report's script, and that of the list of runs."""
    return _script(SCRIPTS), _script(LIST_SCRIPTS)


def page(
    template: str,
    content: Mapping[str, Any],
    sections: Sequence[tuple[str, str]],
    *,
    evidence: Evidence,
    digest: str,
    script: str = "",
    form_action: str = "'none'",
) -> str:
    """A template that extends `_base.html`, with the style and policy of all pages.

    `content` holds `version`, `schema` and `source` for the frame; `sections` are ids and titles;
    `digest` is the SHA-256 of the data behind the page; `script` alone may run; `form_action` is
    where forms may lead.
    """
    css = (_TEMPLATES / "style.css").read_text("utf-8") + charts.theme_css() + "\n"
    frame = {
        "css": Markup(css),  # our own file, hashed in the policy  # nosec B704
        "script": Markup(script),  # our own file, hashed in the policy  # nosec B704
        "policy": policy(styles=[css], scripts=[script] if script else [], form_action=form_action),
        "sections": sections,
        "evidence": evidence,
        "digest": digest,
        "closing": text.CLOSING,
    }
    return _environment().get_template(template).render(frame | dict(content))


def figures(results: Results) -> tuple[Figure, ...]:
    """All figures, in the order of the page."""
    return (
        reidentification(results),
        scores(results),
        frontier(results),
        model_states(results),
        contrasts(results),
        setting_curves(results),
    )


def privacy_figures(results: Results) -> tuple[Figure, ...]:
    """Figures of what a study asks for beside reconstructions."""
    return (
        *([shown_curve(results)] if results.shown_epsilon else []),
        *([membership_curves(results)] if results.membership else []),
    )


def source_hash(content: str) -> str:
    """CSP source expression of an inline block, quotes included.

    Args:
        content: Exactly what stands between the tags; one more space changes the hash.

    >>> source_hash("alert('Hello, world.');")
    "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    """
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def policy(*, styles: Iterable[str], scripts: Iterable[str], form_action: str = "'none'") -> str:
    """Policy of a self-contained page: the given blocks, pictures in `data:`, nothing else.

    `frame-ancestors` is left out: browsers ignore it in a `<meta>` element, and say so in the log.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "style-src " + " ".join(map(source_hash, styles)),
            "script-src " + " ".join(map(source_hash, scripts)),
            "img-src data:",
            "base-uri 'none'",
            f"form-action {form_action}",
        )
    )


def _matrices(
    results: Results, rows: tuple[tuple[Strip, ...], ...]
) -> list[tuple[EvidenceMatrix, list[tuple[EvidenceRow, Strip | None]]]]:
    """Each matrix with the pictures of its rows; that of the headline's scenario first."""
    strips = rows or [(None,) * len(matrix.rows) for matrix in results.matrices]
    pairs = [
        (matrix, list(zip(matrix.rows, mine, strict=True)))
        for matrix, mine in zip(results.matrices, strips, strict=True)
    ]
    headline = view.headline_row(results)
    first = headline.scenario if headline else None
    return sorted(pairs, key=lambda pair: (pair[0].scenario != first, -len(pair[0].columns)))


def _exhibits(results: Results, faces: tuple[Trio, ...]) -> list[tuple[Any, Trio | None]]:
    pictures = [*faces, *[None] * (len(results.exhibits) - len(faces))]
    return list(zip(results.exhibits, pictures, strict=True))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "num": text.number,
        "pct": text.percent,
        "points": text.points,
        "signed": text.signed,
        "pval": text.p_value,
        "secs": text.seconds,
        "span": text.estimate_range,
        "rate_span": text.rate_range,
        "counted": text.counted,
        "opinion": text.second_opinion,
        "attack": attack_name,
        "catalog_name": standards.catalog_name,
        "code": standards.code,
        "paint": lambda name: charts.COLORS.get(name, charts.COLORS["grid"]),
        "defense": defense_name,
        "state": state,
        "verdict": text.verdict_name,
        "evidence_title": view.evidence_title,
    }
    return environment

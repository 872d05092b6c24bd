"""Claimed ε beside the ε that canaries show: lines of the report, their curve and findings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
from markupsafe import Markup

from fedaudit.core.claims import in_words
from fedaudit.core.scenario import Study
from fedaudit.reports.charts import COLORS, Key, draw, over
from fedaudit.reports.comparison import Role, role_of
from fedaudit.reports.figures import Figure, Panel, Table, unique
from fedaudit.reports.findings import fingerprint
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Finding, Results
from fedaudit.reports.text import ABSENT
from fedaudit.study.canary_result import CanaryAudit, ShownLine
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import federation_jobs
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.stored_values import read_as

DP = ("NIST SP 800-226", "NIST AI 100-2 NISTAML.033")
KEYS = (
    Key("shown at least, if the noise is Gaussian", "circle", "c1"),
    Key("shown at least, whatever the mechanism", "diamond", "c2"),
    Key("claimed", "dash", "prior"),
)


@dataclass(frozen=True)
class PrivacyLine:
    """One line of claimed and shown ε, in words.

    Attributes:
        claimed, shown, between, tighten: What is claimed, what canaries show at least, where the
            true ε may lie, and what would tell it more exactly.
        verdict: What that means.
        grave: Whether it is a finding.
    """

    scenario: str
    defense: str
    claimed: str
    shown: str
    between: str
    tighten: str
    verdict: str
    grave: bool


def shown_lines(folder: RunFolder, study: Study, stock: Inventory) -> tuple[ShownLine, ...]:
    """What the study's canaries showed."""
    finished_keys = set(stock.done)
    return tuple(
        read_as(ShownLine, folder.measurement(job.key), folder.files(job.kind, job.key)[0])
        for job in federation_jobs(study)
        if job.asks == "canaries" and job.key in finished_keys
    )


def privacy_lines(results: Results) -> tuple[PrivacyLine, ...]:
    """The block of claimed and shown ε."""
    return tuple(_line(one) for one in results.shown_epsilon)


def _line(one: ShownLine) -> PrivacyLine:
    audit = one.audit
    if audit is None:
        return PrivacyLine(
            one.scenario, one.defense, ABSENT, ABSENT, ABSENT, ABSENT, f"not tested: {one.reason}",
            False,
        )  # fmt: skip
    bounds, claim = audit.shown, audit.claim
    top = max(bounds.any_mechanism, bounds.f_dp, bounds.gaussian)
    ceiling = "no claim bounds it above"
    if claim is not None and not audit.faulty:
        ceiling = f"at most {claim.epsilon:.3g}, if the implementation is right"
    return PrivacyLine(
        scenario=one.scenario,
        defense=one.defense,
        claimed=in_words(claim) if claim else "none",
        shown=f"ε ≥ {bounds.any_mechanism:.2f} whatever the mechanism ({bounds.right} of "
        f"{bounds.guesses} guesses right), ≥ {top:.2f} if its noise is Gaussian; each with "
        f"{bounds.confidence:.0%} confidence at δ = {bounds.delta:g}".replace("%", " %")
        + _of_what(audit),
        between=f"at least {bounds.any_mechanism:.2f}; {ceiling}",
        tighten=audit.power,
        verdict=_verdict(audit),
        grave=audit.faulty,
    )


def _of_what(audit: CanaryAudit) -> str:
    """For one what the bounds are, and the estimate beside them."""
    text = f"; for one {audit.unit}"
    text += f" of {audit.photos} photos" if audit.unit == "person" else ""
    if audit.estimate is None:
        return text
    guess = audit.estimate
    return (
        f"{text}. Estimated from the cosines of canary clients: about {guess.value:.2f} "
        f"({guess.low:.2f} to {guess.high:.2f}), no bound"
    )


def _verdict(audit: CanaryAudit) -> str:
    causes = ", ".join(cause.name for cause in audit.causes if cause.present)
    if audit.claim is None:
        return "no claim to hold it against"
    if audit.exceeded:
        return f"more shown than claimed, {audit.exceeded}: {causes or 'cause not known'}"
    if causes:
        return f"not what it claims: {causes}"
    return "nothing shown above the claim"


def privacy_findings(study: Study, lines: Sequence[ShownLine]) -> Iterator[Finding]:
    """Findings: implementations that do not deliver the ε that they claim; none of controls."""
    for line in lines:
        scenario = study.scenario(line.scenario)
        choice = next(one for one in scenario.defenses if one.label == line.defense)
        role: Role = role_of(study, choice)
        audit = line.audit
        if role == "control" or audit is None or audit.claim is None or not audit.faulty:
            continue
        text_line = _line(line)
        present = [cause for cause in audit.causes if cause.present]
        yield Finding(
            id="",
            severity="critical",
            confidence="high",
            cause="The implementation does not deliver the privacy that it claims",
            title=f"{defense_name(line.defense)} does not deliver its claim: {text_line.verdict}",
            claim=f"Claimed: {text_line.claimed}. Shown: {text_line.shown}.",
            evidence="; ".join(f"{cause.name}: {cause.evidence}" for cause in present)
            or "Canaries' coins were guessed more often than the claim allows.",
            configuration=f"scenario {line.scenario}: {audit.shown.canaries:,} canaries, one "
            "training, each client's updates of all rounds seen",
            remedy="Mend what is named, and audit again: fedaudit dp STUDY --canaries "
            f"{audit.shown.canaries}. Until then no ε may be quoted.",
            standards=DP,
            fingerprint=fingerprint("shown epsilon", line.scenario, line.defense),
        )


def shown_curve(results: Results) -> Figure:
    """Figure: ε that canaries show, over the ε that is claimed."""
    pairs = [(line, line.audit) for line in results.shown_epsilon if line.audit]
    panels = []
    for scenario in unique([line.scenario for line, _ in pairs]):
        points = [
            (audit.claim.epsilon, audit)
            for line, audit in pairs
            if line.scenario == scenario and audit.claim and 0 < audit.claim.epsilon < float("inf")
        ]
        if points:
            alt_text = f"ε shown over ε claimed, {scenario}"
            panels.append(Panel(scenario, alt_text, _panel(points)))
    rows = tuple(
        (
            line.scenario,
            line.defense,
            f"{audit.claim.epsilon:.3g}" if audit.claim else ABSENT,
            f"{audit.shown.any_mechanism:.2f}",
            f"{audit.shown.f_dp:.2f}",
            f"{audit.shown.gaussian:.2f}",
            f"{audit.shown.canaries:,}",
        )
        for line, audit in pairs
    )
    heads = ("Scenario", "Defense", "ε claimed ↓ (0 and up)", "Shown, any mechanism ↓")
    return Figure(
        id="shown-epsilon",
        title="Shown and claimed ε",
        reading=(
            "Up: what canaries show of ε at least, with 95 % confidence; right: what is claimed. A "
            "mark above the dashed line shows more than is claimed: the implementation is broken. "
            "Below it nothing contradicts the claim; the nearer, the more of it is used up."
        ),
        panels=tuple(panels) or (Panel("", "", why="No defense that canaries tried claims an ε."),),
        keys=KEYS if panels else (),
        table=Table((*heads, "Shown, f-DP ↓", "Shown, Gaussian model ↓", "Canaries"), rows),
    )


def _panel(points: Sequence[tuple[float, CanaryAudit]]) -> Markup:
    bounds = [max(one.shown.gaussian, one.shown.f_dp, one.shown.any_mechanism) for _, one in points]
    most = 1.1 * max(*(epsilon for epsilon, _ in points), *bounds)
    axis = alt.Axis(gridColor=COLORS["grid"], tickCount=5)
    scale = alt.Scale(domain=[0, most], nice=False)
    x = alt.X("x:Q", title="ε claimed", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="ε shown at least", scale=scale, axis=axis)
    line = over([{"x": 0, "y": 0}, {"x": most, "y": most}])
    diagonal = line.mark_line(color=COLORS["prior"], strokeDash=[5, 4], strokeWidth=2)
    layers = [diagonal.encode(x=x, y=y)]
    for key, values in (
        (KEYS[0], bounds),
        (KEYS[1], [one.shown.any_mechanism for _, one in points]),
    ):
        records = [{"x": c, "y": v} for (c, _), v in zip(points, values, strict=True)]
        color = COLORS[key.color]
        base = over(records).encode(x=x, y=y)
        layers.append(base.mark_line(color=color, strokeWidth=1.5, opacity=0.6))
        layers.append(
            base.mark_point(shape=key.shape, size=80, opacity=1, fill=color, stroke=color)
        )
    return draw(layers, height=280, left=72, right=24, bottom=56)

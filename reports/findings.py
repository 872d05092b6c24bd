"""What to act on, and what was looked at."""

import hashlib
from collections.abc import Iterable

from fedaudit.core.scenario import Study
from fedaudit.reports.lessons import IRREVERSIBILITY, ONE_OWNER, is_template, kind_of, lesson
from fedaudit.reports.results import Coverage, Exposure, Finding, Row
from fedaudit.reports.verdicts import rate_text

RECONSTRUCTION: tuple[str, ...] = (
    "NIST AI 100-2 NISTAML.032",
    "MITRE ATLAS AML.T0024.001",
    "OWASP ML03:2023",
)
MEMBERSHIP = ("NIST AI 100-2 NISTAML.033", "MITRE ATLAS AML.T0024.000", "OWASP ML04:2023")
PROPERTY = ("NIST AI 100-2 NISTAML.034",)
CLASSES: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    (
        "gradient inversion in image space",
        frozenset({"inverting_gradients", "dlg", "idlg", "grad_inversion", "gion"}),
        RECONSTRUCTION,
    ),
    (
        "gradient inversion with a generative prior",
        frozenset({"gan_inversion", "liu_2021", "gias", "ggl", "gifd"}),
        RECONSTRUCTION,
    ),
    (
        "inversion in closed form (inputs, feature maps)",
        frozenset({"map_inversion", "analytic", "r_gap", "spear"}),
        RECONSTRUCTION,
    ),
    ("learned inversion", frozenset({"lti", "feature_decoder"}), RECONSTRUCTION),
    ("template inversion", frozenset({"template_inversion"}), (*RECONSTRUCTION, *IRREVERSIBILITY)),
    (
        "malicious server",
        frozenset({"imprint", "trap_weights", "fishing"}),
        RECONSTRUCTION,
    ),
    ("membership inference", frozenset(), MEMBERSHIP),
    ("property inference", frozenset(), PROPERTY),
)
"""Attack class, the attacks of it that we have, its names elsewhere."""
NO_REMEDY = "No defense that was measured here lowers the rate; try others, or larger batches."

RECORDED_REMEDY = (
    "A recording holds no defense to compare with. `fedaudit run` measures defenses, larger "
    "batches and other networks on a simulated federation, with what each costs in accuracy."
)


def coverage(study: Study, rows: tuple[Row, ...]) -> tuple[Coverage, ...]:
    """Every class of attack on shared updates, executed or not."""
    label_to_name = {a.label: a.name for s in study.scenarios for a in s.attacks}
    rows = tuple(row for row in rows if row.n_targets)  # the others had nothing to attack
    found = []
    for attack_class, names, standards in CLASSES:
        asked = any(name in names for name in label_to_name.values())
        mine = [row for row in rows if label_to_name[row.attack] in names]
        tested = [row.reid for row in mine if row.reid]
        result = "—"
        if tested:
            hits, n = sum(r.hits for r in tested), sum(r.n for r in tested)
            searched = all(row.searched for row in mine)
            verb = "match somebody in the gallery" if searched else "re-identified"
            result = f"{hits} of {n} {verb}, over all defenses"
        elif mine:
            result = "executed; identity not tested"
        found.append(Coverage(attack_class, asked, bool(mine), result, standards))
    other = sorted({a for a, n in label_to_name.items() if not any(n in c[1] for c in CLASSES)})
    executed = {row.attack for row in rows}
    for a in other:
        result = "see the comparison" if a in executed else "—"
        found.append(Coverage(f"other: {a}", True, a in executed, result, ()))
    return tuple(found)


def findings(
    rows: tuple[Row, ...],
    exposures: tuple[Exposure, ...] = (),
    more: Iterable[Finding] = (),
) -> tuple[Finding, ...]:
    """Demonstrated leaks, single matches, and protections that cover less than they seem to.

    Args:
        rows: The comparison. Of each scenario and defense the worst leak is a finding, and apart
            from it the worst leak from templates.
        exposures: What was sent; a secure sum among it is a finding.
        more: Findings of other origin, to be put in order with these.
    """
    found: list[Finding] = []
    for scene in dict.fromkeys((row.scenario, row.defense) for row in rows):
        mine = [row for row in rows if (row.scenario, row.defense) == scene and row.reid]
        for of_templates in (False, True):
            tried = [row for row in mine if is_template(row) is of_templates]
            leaks = [row for row in tried if row.verdict.kind == "LEAK DEMONSTRATED"]
            matched = [row for row in tried if row.reid and row.reid.hits and not leaks]
            if leaks:
                found.append(_leak(max(leaks, key=_order), rows))
            elif matched:
                found.append(_single(max(matched, key=_order)))
        found += _uncovered(mine)
    found += [*_secure_sums(exposures), *more]
    numbered = sorted(found, key=lambda f: -_SEVERITIES.index(f.severity))
    return tuple(_numbered(k + 1, finding) for k, finding in enumerate(numbered))


_SEVERITIES = ("none", "low", "medium", "high", "critical")


def _order(row: Row) -> tuple[float, float]:
    return (row.reid.low if row.reid else 0.0), (row.ssim.value if row.ssim else -1.0)


def _leak(row: Row, rows: tuple[Row, ...]) -> Finding:
    assert row.reid is not None
    state = "a fresh model" if row.round == 1 else f"a trained model (round {row.round})"
    state = row.model_state or state
    holm = f"; Holm-adjusted p = {row.p_holm:.2g}" if row.p_holm is not None else ""
    lpips = f", LPIPS {row.lpips.value:.2f}" if row.lpips else ""
    ssim = ""
    if row.ssim:
        ssim = f" SSIM {row.ssim.value:.2f} ({row.ssim.low:.2f} to {row.ssim.high:.2f})"
    title = f"Faces can be rebuilt from updates of {state}"
    if row.searched:
        title = f"Faces that match somebody in the gallery come out of updates of {state}"
    remedy, standards = _remedy(row, rows), RECONSTRUCTION
    if is_template(row):
        told = lesson(row.attacked)
        title, standards = told.title, (*RECONSTRUCTION, *IRREVERSIBILITY)
        remedy = told.remedy if remedy == NO_REMEDY else f"{told.remedy} {remedy}"
    return Finding(
        id="",
        severity=row.verdict.severity,
        confidence="high" if row.p_holm is not None and row.p_holm < 0.05 else "medium",
        title=f"{title}, {_under(row)}",
        claim=_claim(row),
        evidence=f"{row.verdict.sentence}{f'{ssim}{lpips}{holm}'.replace(';', '', not ssim)}.",
        configuration=_configuration(row),
        remedy=remedy,
        standards=standards,
        fingerprint=_fingerprint("leak", row),
    )


def _claim(row: Row) -> str:
    assert row.reid is not None
    if row.searched:
        return f"Of {row.attack}, {rate_text(row.reid)} match somebody in the gallery."
    return f"{row.attack} re-identified {rate_text(row.reid)}."


def _single(row: Row) -> Finding:
    assert row.reid is not None
    return Finding(
        id="",
        severity="low",
        confidence="low",
        title=f"{row.reid.hits} match(es) from {_source(row)} {_under(row)}, not yet significantly "
        "above prior-only",
        claim=_claim(row),
        evidence=row.verdict.sentence,
        configuration=_configuration(row),
        remedy="Run more targets: a confirmed match matters even in a run that is clean otherwise.",
        standards=RECONSTRUCTION,
        fingerprint=_fingerprint("single", row),
    )


def _uncovered(rows: Iterable[Row]) -> list[Finding]:
    """A stated (ε, δ) beside a demonstrated leak: the guarantee is about something else."""
    for row in sorted(rows, key=_order, reverse=True):
        if row.budget and "not covered" in row.budget.unit:
            leaks = row.verdict.kind == "LEAK DEMONSTRATED"
            return [
                Finding(
                    id="",
                    severity="high" if leaks else "low",
                    confidence="high",
                    title=f"The privacy claim of {row.defense} does not cover what leaks",
                    claim=f"ε = {row.budget.epsilon:g} holds for {row.budget.unit}.",
                    evidence=row.verdict.sentence,
                    configuration=_configuration(row),
                    remedy="State the unit of the guarantee wherever ε is quoted, and protect the "
                    "backbone's update too (for example by DP-SGD).",
                    standards=RECONSTRUCTION,
                    fingerprint=_fingerprint("uncovered", row),
                )
            ]
    return []


def _remedy(row: Row, rows: tuple[Row, ...]) -> str:
    """The defense that was measured to help most in the same scenario, with its price."""
    rivals: dict[str, list[Row]] = {}
    for other in rows:
        if other.scenario == row.scenario and other.defense != row.defense and other.reid:
            rivals.setdefault(other.defense, []).append(other)
    # A defense is as good as it is against the attack that does best against it.
    worst = [max(mine, key=_order) for mine in rivals.values()]
    helping = [w for w in worst if w.reid and row.reid and w.reid.value < row.reid.value]
    if not helping and row.model_state:
        return RECORDED_REMEDY
    if not helping:
        return NO_REMEDY
    best = min(helping, key=_order)
    assert best.reid is not None
    price = ""
    if best.utility and row.utility:
        price = (
            f" Verification accuracy went from {row.utility.accuracy:.3f} to "
            f"{best.utility.accuracy:.3f}."
        )
    return f"Measured here: under {best.defense}, {rate_text(best.reid)}.{price}"


def _secure_sums(exposures: tuple[Exposure, ...]) -> list[Finding]:
    """What the server sees of a secure sum beyond the sum: an identity, not a measurement."""
    found = []
    for scenario in dict.fromkeys(e.scenario for e in exposures):
        here = {kind_of(e.artifact): e for e in exposures if e.scenario == scenario}
        e = here.get("summed_rows", here.get("aggregate"))
        if e is None:
            continue
        owned = kind_of(e.artifact) == "summed_rows"
        which = "Whether a row here has one owner is for the method to say."
        if owned:
            which = "Here such rows were summed: each is known as if it had been sent in clear."
        found.append(
            Finding(
                id="",
                severity="low" if owned else "none",
                confidence="high",
                title="The secure sum hides no row that one client alone owns"
                if owned
                else "The secure sum hides only what several clients change",
                claim="A row that one client alone changes comes out of the sum exactly, whatever "
                f"the others send: W_k = (S − (Σw − w_k) · W_sent) / w_k. {which}",
                evidence="Derived, not measured in this run: the server knows what it had sent, "
                "W_sent, and the weights w travel in clear. Tested to errors below 1e-5 "
                "(fedaudit.attacks.closed_form.secure_sum).",
                configuration=f"scenario {e.scenario}: network {e.network}, method {e.method}, "
                f"round {e.round}, {e.artifact} of {e.summary}",
                remedy=ONE_OWNER,
                standards=(*RECONSTRUCTION, *IRREVERSIBILITY),
                fingerprint=_hash("secure sum", e.scenario, e.network, e.method, str(e.round)),
            )
        )
    return found


def _source(row: Row) -> str:
    return " + ".join(row.attacked) or "updates"


def _under(row: Row) -> str:
    return "without a defense" if row.defense == "none" else f"under {row.defense}"


def _configuration(row: Row) -> str:
    return (
        f"scenario {row.scenario}: network {row.network}, method {row.method}, round {row.round}, "
        f"batch {row.batch_size}, from {_source(row)}, threat model {row.threat_model}, attack "
        f"adaptive: {row.adaptive}"
    )


def _fingerprint(kind: str, row: Row) -> str:
    parts = (kind, row.scenario, row.network, row.method, str(row.round), row.defense, row.attack)
    return _hash(*parts)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _numbered(number: int, finding: Finding) -> Finding:
    return Finding(**{**finding.__dict__, "id": f"F{number:02d}"})

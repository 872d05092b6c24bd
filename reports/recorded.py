"""What a report says of updates that were recorded in a real run, and not simulated.

All of it stands in the study: the recording itself may be gone.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from fedaudit.core.measures import Estimate, Rate
from fedaudit.core.recorded_run import Protection
from fedaudit.core.scenario import Study
from fedaudit.reports.comparison import LEAKING, Row, Severity
from fedaudit.reports.measurement import Explained, Measurement
from fedaudit.reports.plain_names import attack_name
from fedaudit.reports.results import Finding
from fedaudit.reports.text import counted, number
from fedaudit.reports.verdicts import model_in_words, severity_of
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals

SEARCHED = (
    "Where the originals are not known, a match says that a face resembles somebody in the "
    "gallery, not that this person was in the data. If the gallery holds a photo that was trained "
    "on, the match may be with that photo."
)
FAULTS: Mapping[str, tuple[Severity, str, str]] = {
    "a privacy claim that does not hold": (
        "critical",
        "What is configured as differential privacy is none, or less than it says",
        "Ask `fedaudit dp CAPTURE` what to change; until then quote no ε, and do not call it so.",
    ),
    "counters in the clipping norm": (
        "medium",
        "Clipping counts batch-norm counters, and hides the update for the wrong reason",
        "Leave buffers out of the clipping, or use a network without batch norm; then audit again.",
    ),
    "inconsistent sensitivity": (
        "high",
        "Noise is scaled to less than what updates are clipped to: the stated ε is not met",
        "Set the sensitivity to the clipping norm, or compute ε for the noise that is added.",
    ),
    "less noise than claimed": (
        "high",
        "The noise that is claimed is not in what was shared",
        "Look at where noise is added: before anything leaves the device, to every parameter.",
    ),
    "noise that repeats": (
        "high",
        "Different updates carry the same noise, which cancels in their difference",
        "Draw noise anew in each round and at each client, from a secure source without a seed.",
    ),
    "buffers in clear": (
        "medium",
        "Batch-norm buffers are sent in clear, outside the protection of the parameters",
        "Keep running statistics on the devices, or put them under the same protection.",
    ),
    "corrupted counters": (
        "low",
        "Secure aggregation breaks batch-norm counters: the server averages what nobody counted",
        "Keep buffers out of the aggregate, or use a network without batch norm.",
    ),
    "clipped values": (
        "low",
        "Secure aggregation cuts large values off: averaged running statistics are wrong",
        "Keep buffers out of the aggregate, or widen its clipping range.",
    ),
}
"""Severity, title and remedy of faults in protections, by the name that inspection gives them."""
IN_USE = "Nothing to do: attacks took what they could of it into account."
UNTRIED = "No attack finished: what it keeps from one was not tried."
"""What to do about protections in use, after attacks and without any."""
EXPOSED: Mapping[str, tuple[Severity, str, str]] = {
    "buffers in clear": (
        "low",
        "Running statistics are sent in the clear",
        "Keep batch-norm buffers on the devices, or use group norm in place of batch norm.",
    ),
}
"""The same of what is sent beyond what it takes, where nothing claims to protect it: no fault in a
protection, and none in use either."""


def chance_of(gallery: Gallery | None) -> Rate | None:
    """How often a photo matches somebody else in a search of the whole gallery."""
    if gallery is None or gallery.threshold is None or not gallery.ceiling_n:
        return None
    if gallery.rates:
        return gallery.rates.strangers
    return intervals.rate_of(gallery.strangers, gallery.ceiling_n, "photos")


def not_identified(measurement: Measurement) -> str:
    """What can be said of a row whose reconstructions were compared with no person."""
    parts = []
    if measurement.ssim:
        prior = mean_text(measurement.prior_ssim) if measurement.prior_ssim else "—"
        parts.append(
            f"SSIM to the originals {mean_text(measurement.ssim)}; prior-only {prior}"
            ". Identity was not tested: it needs a gallery (--gallery) that holds another photo "
            "of these people, and originals in folders with their names"
        )
    else:
        parts.append(
            "The originals are not known, and no gallery was searched: whose faces these are "
            "cannot be said (--truth, --gallery)"
        )
    if shares := measurement.explained:
        parts.append(_explained_text(shares))
    return f"{'. '.join(parts)}. {copies_text(measurement)}".rstrip()


def _explained_text(shares: Explained) -> str:
    others = [
        (shares.other, "another client's update"),
        (shares.prior, "images rebuilt from invented people's updates explain"),
        (shares.noise, "random images"),
    ]
    controls = [f"{name} {mean_text(value)}" for value, name in others if value]
    return (
        f"What was rebuilt explains its update {mean_text(shares.update)}"
        + (f"; {', '.join(controls)}" if controls else "")
        + " (cosine; 1 explains all; this is no likeness of faces)"
    )


def mean_text(value: Estimate) -> str:
    """A mean with its interval, where there is more than one value."""
    if value.n < 2:
        return f"{number(value.value)} (one value, no interval)"
    return f"{number(value.value)} ({number(value.low)} to {number(value.high)})"


def copies_text(measurement: Measurement) -> str:
    """What copies there are, in a sentence; "" where there are none."""
    own, control = measurement.copies, measurement.prior_copies
    if own is None or not own.hits:
        return ""
    prior = f"{control.hits} of {control.n}" if control else "—"
    calibration = measurement.copy_calibration
    word = _copies_word(measurement)
    least = f"PSNR at least {calibration.psnr:.1f} dB"
    if chance := calibration.false_copies:
        least += f", which other photos reach of {counted(chance)}"
    return (
        f"Photos that were trained on come back as {word}, of {counted(own)} ({least}; prior-only "
        f"{prior})."
    )


def _copies_word(measurement: Measurement) -> str:
    """Copies where they are proof, and no more than what was shown where they are none."""
    return "copies" if measurement.copied else "what passes for copies"


def _copies(study: Study, rows: Sequence[Row]) -> Iterator[Finding]:
    """Copies in scenarios where re-identification alone demonstrates no leak."""
    for scenario in dict.fromkeys(row.scenario for row in rows):
        mine = [row for row in rows if row.scenario == scenario]
        if any(row.verdict.kind == "LEAK DEMONSTRATED" for row in mine):
            continue
        candidates = [
            (m.copies, m, row)
            for row in mine
            if (m := row.measurement) and m.copies and m.copies.hits
            if m.prior_copies and not m.prior_copies.hits
        ]
        if not candidates:
            continue
        rate, measurement, best = max(candidates, key=lambda entry: entry[0].low)
        yield Finding(
            id="",
            severity=severity_of(rate, passive=True),
            confidence="high" if measurement.copied else "medium",
            cause=f"Photos come back as {_copies_word(measurement)} from updates",
            title=f"Photos come back as {_copies_word(measurement)} from updates of "
            f"{model_in_words(best)}",
            claim=copies_text(measurement),
            evidence=(
                f"SSIM to the originals {mean_text(measurement.ssim)}" if measurement.ssim else ""
            )
            + "; the auditor knew the originals, and who they show played no part.",
            configuration=f"{study.name}, scenario {scenario}: network {best.network}, batch "
            f"{best.batch_size}, defense {best.defense}, attack {best.attack}",
            remedy="Larger batches, secure aggregation over many clients, or noise; what they help "
            "was not measured here: audit again.",
            standards=("NIST AI 100-2 NISTAML.032", "MITRE ATLAS AML.T0024.001"),
            fingerprint=_fingerprint(study, f"copies {scenario}"),
        )


def _explanations(study: Study, rows: Sequence[Row]) -> Iterator[Finding]:
    """Updates that are explained beyond all controls, where nothing graver was demonstrated."""
    for scenario in dict.fromkeys(row.scenario for row in rows):
        mine = [(row, row.measurement) for row in rows if row.scenario == scenario]
        if any(
            row.verdict.kind in LEAKING or (m and m.copies and m.copies.hits) for row, m in mine
        ):
            continue
        beyond = [
            (m.explained, row)
            for row, m in mine
            if m and m.explained and m.explained.beyond_controls
        ]
        if not beyond:
            continue
        shares, best = max(beyond, key=lambda entry: entry[0].update.low)
        yield Finding(
            id="",
            severity="medium",
            confidence="medium",
            cause="What was rebuilt explains recorded updates",
            title="What was rebuilt explains updates above all controls, of "
            f"{model_in_words(best)}",
            claim="Trained on the rebuilt images, a client would have sent nearly these updates; "
            "how alike they are to the photos was not shown.",
            evidence=f"{attack_name(best.attack)}: {_explained_text(shares)}.",
            configuration=f"{study.name}, scenario {scenario}: network {best.network}, batch "
            f"{best.batch_size}, defense {best.defense}, attack {best.attack}",
            remedy="Learn whose photos these are: audit again with --truth, the photos of a "
            "consenting client.",
            standards=("NIST AI 100-2 NISTAML.032", "MITRE ATLAS AML.T0024.001"),
            fingerprint=_fingerprint(study, f"explained {scenario}"),
        )


def _fingerprint(study: Study, name: str) -> str:
    return hashlib.sha256(f"recorded\x1f{study.name}\x1f{name}".encode()).hexdigest()[:16]


def findings_of(
    study: Study, protections: Sequence[Protection], rows: Sequence[Row] = ()
) -> Iterator[Finding]:
    """Copies, updates that are explained, faults in protections, and protections in use."""
    yield from _copies(study, rows)
    yield from _explanations(study, rows)
    attacked = any(row.measurement for row in rows)
    standards: tuple[str, ...]
    for one in protections:
        if one.fault and one.name in FAULTS:
            severity, title, remedy = FAULTS[one.name]
            cause, standards = title, ("NIST SP 800-226",)
            claim = f"{one.name}: a known way to get a protection wrong."
        elif one.name in EXPOSED:
            severity, title, remedy = EXPOSED[one.name]
            cause, standards = title, ()
            claim = f"{title}: whoever sees an update sees them, too."
        else:
            severity, title = "none", f"Seen in the updates: {one.name}"
            cause, standards = "Protections seen in the updates", ("MITRE ATLAS AML.M0005",)
            claim = f"{one.name}: in use."
            remedy = IN_USE if attacked else UNTRIED
        where = "stated" if one.round is None else f"round {one.round}, {one.clients} update(s)"
        yield Finding(
            id="",
            severity=severity,
            confidence="high" if one.fault else "medium",
            cause=cause,
            title=title,
            claim=claim,
            evidence=one.evidence,
            configuration=f"{study.name}, {where}",
            remedy=remedy,
            standards=standards,
            fingerprint=_fingerprint(study, one.name),
        )

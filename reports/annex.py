"""The annex: what this run tested of standards and laws that name it, from its coverage alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Coverage, Results
from fedaudit.reports.standards import catalog_name
from fedaudit.reports.text import NBSP, verdict_name, visible
from fedaudit.reports.verdicts import rate_text

Place = tuple[str, str]
"""Id and title of the section that holds the evidence."""
COVERAGE: Place = ("coverage", "Coverage")
VERDICT: Place = ("verdict", "Verdict")
DEFENSES: Place = ("defenses", "Defenses")
CONTROLS: Place = ("controls", "Controls")
METHOD: Place = ("method", "Threat model and method")

# Standard with its year, code by which lines of the coverage name it, remark. What each number was
# checked against stands in docs/reading_verdicts.md; texts for sale are named without clauses.
_CLASSES = (
    ("NIST AI 100-2e2025", "NISTAML.032", ""),
    ("NIST AI 100-2e2025", "NISTAML.033", ""),
    ("NIST AI 100-2e2025", "NISTAML.034", ""),
    ("MITRE ATLAS", "AML.T0024.001", ", the closest match"),
    ("MITRE ATLAS", "AML.T0024.000", ""),
    ("OWASP ML Security Top 10 (2023, draft)", "ML03:2023", ""),
    ("OWASP ML Security Top 10 (2023, draft)", "ML04:2023", ""),
    ("ISO/IEC 24745:2022, by ISO/IEC 30136:2018", "irreversibility", " of templates"),
    ("ISO/IEC 24745:2022, by ISO/IEC 30136:2018", "unlinkability", " of templates"),
)


@dataclass(frozen=True)
class AnnexRow:
    """One clause, and what this run has to say of it.

    Attributes:
        standard: With its year.
        clause: Its number or code, and its subject.
        tested: What was tested here and what came of it; "" where nothing was.
        evidence: Where it stands.
    """

    standard: str
    clause: str
    tested: str = ""
    evidence: Place = COVERAGE


def annex(results: Results) -> tuple[AnnexRow, ...]:
    """All rows: those of classes of attack, of how it was measured, of laws."""
    laws = _of_laws(results, _reidentification(results))
    return (*_of_classes(results), *_of_measurement(results), *laws)


def _of_classes(results: Results) -> Iterator[AnnexRow]:
    for standard, code, remark in _CLASSES:
        mine = [c for c in results.coverage if c.executed and _names(c, code)]
        outcomes = "; ".join(f"{c.attack_class}: {c.result}" for c in mine)
        name = catalog_name(code)
        yield AnnexRow(standard, f"{code}{', ' if name else ''}{name}{remark}", outcomes)


def _names(line: Coverage, code: str) -> bool:
    return any(name.endswith(code) for name in line.standards)


def _of_measurement(results: Results) -> Iterator[AnnexRow]:
    pairs = [c for c in results.ceilings if c.impostor_pairs]
    calibration = "; ".join(
        dict.fromkeys(
            f"match threshold {c.threshold:.2f} at a false match rate of {c.fmr:g}, from "
            f"{c.impostor_pairs:,} pairs of different people"
            for c in pairs
        )
    )
    yield AnnexRow("ISO/IEC 19795-1:2021", "false match rate", calibration, CONTROLS)
    ran = [c.attack_class for c in results.coverage if c.executed]
    attempts = (
        f"attacks of {len(ran)} {'class' if len(ran) == 1 else 'classes'}: {'; '.join(ran)}"
        if ran
        else ""
    )
    tests = "8.2.3: adversarial testing, under the threat model of 6.2"
    yield AnnexRow("ISO/IEC 27559:2022", tests, attempts, METHOD)
    names = dict.fromkeys(defense_name(x.defense) for x in results.defenses if x.claims)
    guarantees = (
        f"the claims of {', '.join(names)} are read with their unit, neighbors, accountant and "
        "sampling; an ε is not tested by these attacks unless a row of the coverage says so"
        if names
        else ""
    )
    unit = "privacy unit, neighbor relation, accountant, sampling, trust model"
    yield AnnexRow("NIST SP 800-226 (2025)", unit, guarantees, DEFENSES)


def _of_laws(results: Results, reid: str) -> Iterator[AnnexRow]:
    defenses = ", ".join(defense_name(name) for name in results.deployed if name != "none")
    measure = f"effect of what is deployed ({defenses}): {reid}" if defenses else ""
    gdpr, act, opinion = "GDPR, (EU) 2016/679", "EU AI Act, (EU) 2024/1689", "EDPB Opinion 28/2024"
    biometric = "Art. 4(14), 9(1), 35(7): biometric data, impact assessment"
    yield AnnexRow(gdpr, biometric, reid, VERDICT)
    yield AnnexRow(
        gdpr, "Art. 32(1)(d): tests of technical measures", measure if reid else "", VERDICT
    )
    yield AnnexRow(act, "Art. 15(5): resilience against confidentiality attacks", reid, VERDICT)
    likely = "¶55, 58: structured tests by attacks, and their record"
    context = f"{reid}; release context as declared, not examined" if reid else ""
    yield AnnexRow(opinion, likely, context, VERDICT)
    status = "status of a model under the GDPR: its resistance to attacks"
    yield AnnexRow("CNIL, AI how-to sheets (22 July 2025)", status, context, VERDICT)


def _reidentification(results: Results) -> str:
    """How many came back in the headline's row, else in the worst; "" where none was tested.

    With its interval and the study's verdict: a clause beside "0 of 8" alone looks like one met.
    """
    place = results.headline_row
    rows = [row for row in results.rows if row.reid] if place is None else [results.rows[place]]
    # Where none is deployed the control is no answer, unless nothing else was compared with it.
    rows = [row for row in rows if place is not None or not row.undefended] or rows
    rated = [(row.reid.value, row.reid, row.defense) for row in rows if row.reid]
    if not rated:
        return ""
    _, reid, defense = max(rated, key=lambda entry: entry[0])
    where = "" if place is not None else f"at worst, under {defense_name(defense)}, "
    verdict = verdict_name(results.headline.kind, results.settings.reid_limit).replace(NBSP, " ")
    return visible(f"{where}{rate_text(reid)} re-identified; verdict of the study: {verdict}")

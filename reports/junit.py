"""Findings as JUnit XML, which continuous integration shows as tests."""

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from fedaudit.core.printable import printable
from fedaudit.reports.gate import OPEN
from fedaudit.reports.results import Results
from fedaudit.reports.text import verdict_name


def junit(results: Results) -> str:
    """One test a line of what is deployed, and one a finding; an open verdict is skipped.

    Of a comparison, which deploys nothing, each line but the control's is one.
    """
    suite = TestSuite(f"fedaudit {printable(results.study)}")
    for row in results.rows:
        # The control must leak: of a comparison, too, it is no test that could fail.
        if row.role != "deployed" if results.deployed else row.role == "control":
            continue
        case = TestCase(
            printable(f"{row.defense}: {row.attack}"), classname=printable(row.scenario)
        )
        sentence = printable(row.verdict.sentence)
        name = verdict_name(row.verdict.kind, results.settings.reid_limit)
        if row.verdict.kind in OPEN:
            case.result = [Skipped(f"{name}: {sentence}")]
        elif row.verdict.severity != "none":
            case.result = [Failure(sentence, name)]
        suite.add_testcase(case)
    for finding in results.findings:
        case = TestCase(printable(f"{finding.fingerprint} {finding.title}"), classname="findings")
        if finding.severity != "none":
            case.result = [
                Failure(printable(f"{finding.claim} {finding.remedy}"), finding.severity)
            ]
        suite.add_testcase(case)
    document = JUnitXml()
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: str = document.tostring().decode()  # type: ignore[no-untyped-call]
    return text

"""The command line: `fedaudit COMMAND`. One file a command; nothing heavy is imported before one
is chosen.
"""

import sys

import click

from fedaudit.cli.ending import end
from fedaudit.cli.group import LazyGroup
from fedaudit.cli.options import examples
from fedaudit.core.version import VERSION

COMMANDS = {
    "demo": ("fedaudit.cli.demo:demo", "Audit a small federation of real faces, built in."),
    "run": ("fedaudit.cli.run:run", "Run a study, or go on with one, and write its report."),
    "why": ("fedaudit.cli.why:why", "Explain which layers, rounds, regions and clients leak."),
    "report": ("fedaudit.cli.report:report", "Write the report of a run folder again."),
    "verify": ("fedaudit.cli.verify:verify", "Check that nothing in a run folder was altered."),
    "sign": ("fedaudit.cli.sign:sign", "Say who stands for a run, and sign it."),
    "runs": ("fedaudit.cli.runs:runs", "List and show the runs that are kept."),
    "view": ("fedaudit.cli.view:view", "Look at many runs in a browser."),
    "names": ("fedaudit.cli.names:names", "Print whom a run's pseudonyms stand for."),
    "compare": ("fedaudit.cli.compare:compare", "Print what each defense of a run buys."),
    "recommend": ("fedaudit.cli.recommend:recommend", "Name defenses that were good enough."),
    "gate": ("fedaudit.cli.gate:gate", "Pass or fail a run, for continuous integration."),
    "accept": ("fedaudit.cli.gate:accept", "Accept a finding until a day."),
    "diff": ("fedaudit.cli.diff:diff", "Say what changed from one run to another."),
    "export": ("fedaudit.cli.export:export", "Write findings as SARIF, JUnit, Markdown, CSV."),
    "audit": ("fedaudit.cli.audit:audit", "Attack what a capture of a real run holds."),
    "import": ("fedaudit.cli.import_files:importing", "Make a capture of files with updates."),
    "inspect": ("fedaudit.cli.inspect_capture:inspecting", "Show what a capture holds."),
    "dp": ("fedaudit.cli.dp:dp", "Say whether claimed differential privacy is there."),
    "members": ("fedaudit.cli.members:members", "Ask who is in the data of a recorded run."),
    "scan": ("fedaudit.cli.scan:scan", "Look for tampering in a model that a server sent."),
    "list": ("fedaudit.cli.list_plugins:listing", "List attacks, defenses, methods, data sets …"),
    "explain": ("fedaudit.cli.explain:explain", "Explain one of them, with its settings."),
    "schema": ("fedaudit.cli.schema:schema", "Print the JSON schema of studies or results."),
    "prior": ("fedaudit.cli.prior:prior", "Train, show and check generators of faces."),
    "assets": ("fedaudit.cli.assets:assets", "Fetch, list and check models and data sets."),
    "cache": ("fedaudit.cli.cache_listing:cache", "List and remove what attacks learned."),
    "doctor": ("fedaudit.cli.doctor:doctor", "Check that this computer can run audits."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "fedaudit demo --quick",
        "fedaudit run study.toml --output runs/first",
        "fedaudit report runs/first --evidence full",
        "fedaudit list attacks",
        note="Exit codes: 0 fine, 1 gate failed, 2 usage, 3 audit invalid or inconclusive, "
        "4 failure, 130 interrupted.",
    ),
)
@click.version_option(VERSION, message="fedaudit %(version)s")
def cli() -> None:
    """Audit what federated learning really shares: attack client updates as a curious server
    would, and measure which faces come back.
    """


def main() -> None:
    """Entry point of the `fedaudit` command."""
    sys.exit(end(cli, sys.argv[1:]))

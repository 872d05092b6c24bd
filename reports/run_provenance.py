"""The provenance of a report: which run, versions, data and hashes its numbers come from."""

from fedaudit.files.asset_table import ASSETS
from fedaudit.reports.limitations import assets_used
from fedaudit.reports.results import Provenance
from fedaudit.reports.this_run import ROOT
from fedaudit.study import hash_list
from fedaudit.study.manifest import Manifest
from fedaudit.study.run_folder import RunFolder


def provenance_of(folder: RunFolder, manifest: Manifest) -> Provenance:
    """Versions, command, data and hashes of a run, and how long its sessions took."""
    facts = folder.facts()
    sessions = [e.get("seconds") for e in folder.events() if e.get("event") == "session"]
    return Provenance(
        fedaudit=manifest.fedaudit,
        command=manifest.command,
        started=manifest.started,
        seconds=float(sum(s for s in sessions if isinstance(s, int | float))),
        python=facts.python,
        platform=facts.platform,
        cpu_count=facts.cpu_count,
        versions=facts.versions,
        git_commit=facts.git_commit,
        seeds=manifest.study.seeds,
        data=manifest.study.data.name,
        data_terms=facts.terms,
        asset_terms={name: ASSETS[name].terms for name in assets_used(facts)},
        hashes={"study": manifest.digest, **facts.hashes, **_root(folder)},
    )


def _root(folder: RunFolder) -> dict[str, str]:
    digest = hash_list.root(folder.path)
    return {ROOT: digest} if digest else {}

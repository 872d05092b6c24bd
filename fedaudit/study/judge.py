"""Who judges identity in a study: a gallery and its embedder, made once a study and worker."""

from contextlib import suppress

from fedaudit.captures.simulate.study_faces import Latest
from fedaudit.core.errors import AssetError, RunFolderError
from fedaudit.core.scenario import Federation, Scenario, Study
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import Embed, Gallery, average_with_mirror, gallery_of_packed, rgb
from fedaudit.study.jobs import gallery_name
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of

Judge = tuple[Gallery | None, Embed | None]

_JUDGES: Latest[dict[str, Judge]] = Latest()


def judge_of(study: Study, folder: RunFolder, scenario: Scenario) -> Judge:
    """The gallery and the embedder that judge identity; None each where there are none."""
    federation = study.federation_of(scenario)
    judges = _JUDGES.get(study, dict)
    name = gallery_name(study, federation)
    if name not in judges:
        judges[name] = _judge(study, folder, name, federation)
    return judges[name]


def _judge(study: Study, folder: RunFolder, name: str, federation: Federation) -> Judge:
    source = source_of(study, folder)
    if not source.facts().gallery:
        return None, None
    try:
        embedder = load_embedder()
    except AssetError:
        return None, None  # the report says that identity was not tested
    kept = None
    with suppress(RunFolderError):  # damaged; the same photos give the same one again
        kept = folder.shared_tensors(name)  # they take seconds a worker
    if kept is None:
        kept = source.gallery(federation, embedder)
        if kept is None:
            return None, None
        folder.save_shared_tensors(name, kept)
    gallery = gallery_of_packed(kept, fmr=study.fmr)
    embed = average_with_mirror(embedder.embed)
    return gallery, lambda images: embed(rgb(images))

"""Who judges identity in a study: galleries and embedders, made once a study and worker."""

from contextlib import suppress

from fedaudit.captures.simulate.study_faces import Latest
from fedaudit.core.errors import AssetError, RunFolderError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.files.taking_turns import in_turn
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.framing import Frame
from fedaudit.scoring.identity import Embed, Gallery, gallery_of_packed, rgb
from fedaudit.scoring.score import Judge
from fedaudit.study.calibration import save_numbers
from fedaudit.study.jobs import gallery_name
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of

_JUDGES: Latest[dict[str, Judge | None]] = Latest()


def judge_of(
    study: Study, folder: RunFolder, scenario: Scenario
) -> tuple[Gallery | None, Embed | None]:
    """The gallery and the embedder that decide identity; None each where there are none."""
    first = _judge(study, folder, study.federation_of(scenario), study.judges[0], "")
    return (first.gallery, first.embed) if first else (None, None)


def judges_beside(study: Study, folder: RunFolder, scenario: Scenario) -> tuple[Judge, ...]:
    """The judges after the first, as far as their weights are at hand."""
    federation = study.federation_of(scenario)
    others = (_judge(study, folder, federation, each, each.label) for each in study.judges[1:])
    return tuple(judge for judge in others if judge)


def _judge(
    study: Study, folder: RunFolder, federation: Federation, choice: Choice, suffix: str
) -> Judge | None:
    judges = _JUDGES.get(study, dict)
    name = gallery_name(study, federation, suffix)
    if name not in judges:
        # Workers need it at the same time, and it takes seconds.
        with in_turn(f"{folder.path.absolute()}/{name}"):
            judges[name] = _calibrate(study, folder, federation, choice, name)
    return judges[name]


def _calibrate(
    study: Study, folder: RunFolder, federation: Federation, choice: Choice, name: str
) -> Judge | None:
    source = source_of(study, folder)
    if not source.facts().gallery:
        return None
    stock = None
    with suppress(RunFolderError):  # damaged; the same photos give the same one again
        stock = folder.shared_tensors(name)  # they take seconds a worker
    try:
        embedder = load_judge(choice)
        tensors = source.gallery(federation, embedder) if stock is None else stock
    except AssetError:
        return None  # the report says that identity was not tested
    if tensors is None:
        return None
    if stock is None and not folder.recipients:  # templates of faces, which nobody is to read
        folder.save_shared_tensors(name, tensors)
    frame = tensors["frame"]
    embed = embedder.within(Frame(*frame.tolist()) if frame.dim() == 1 else frame.float())
    gallery = gallery_of_packed(tensors, fmr=study.fmr)
    save_numbers(folder.path, name, gallery)
    return Judge(choice.label, gallery, lambda images: embed(rgb(images)))

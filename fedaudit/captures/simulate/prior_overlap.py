"""Whether an attack's face prior knows the audited photos: then nothing it finds is the update's.

Told apart by names, and in folders by the photos themselves: what a prior was trained on stands in
its file (`fedaudit prior train`), with hashes of a folder's photos; an attacker's own folder is
compared with the audited one; the synthetic set is drawn by the stock generator. Photos that were
saved anew, and a prior in another format, are not noticed here: what such a prior knows shows in
the prior-only control.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fedaudit.core.errors import FedauditError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.registry import create, names
from fedaudit.core.scenario import Choice, Study
from fedaudit.data.photo_hashes import photo_hashes
from fedaudit.models.prior_file import SUFFIX, Manifest, photos_behind, read_prior

STOCK = "face_gan"


def overlaps(study: Study) -> dict[str, str]:
    """By label of an attack, why its face prior has seen the study's photos; {} where none has."""
    choices = {c.label: c for scenario in study.scenarios for c in scenario.attacks}
    reasons = {}
    for label, choice in choices.items():
        with suppress(OSError):  # what cannot be read is said where it is used
            reasons[label] = _overlap(study.data, choice)
    return {label: why for label, why in reasons.items() if why}


def _overlap(data: Choice, attack: Choice) -> str:
    if own := attack.settings.get("photos"):
        theirs = photo_hashes(Path(str(own)).expanduser())
        if overlap := common_photos(data, theirs):
            return f"{overlap} are among the attacker's own faces of {attack.label}"
    return _of_prior(data, attack)


def _of_prior(data: Choice, attack: Choice) -> str:
    source = str(attack.settings.get("prior", attack.settings.get("source", STOCK)))
    is_ours = Path(source).suffix == SUFFIX and Path(source).is_file()
    if not (is_ours or (data.name == "synthetic" and source == STOCK)):
        return ""
    try:
        if not _draws_faces(attack):
            return ""
        about = read_prior(Path(source)).manifest if is_ours else None
    except FedauditError:
        return ""  # whatever is wrong is said where it is used
    own = "" if about is None else Path(source).name + ", which learned from "
    if data.name == "synthetic" and (about is None or about.stock_faces):
        return f"the generator of {attack.label} ({own}{STOCK}) drew the audited faces itself"
    assert about is not None
    path = data.settings.get("path")
    names = {data.name} if path is None else {data.name, Path(str(path)).resolve().name}
    name = Path(source).name
    if about.data not in names:
        overlap = common_photos(data, photos_behind(Path(source)))
        sentence = f"{overlap} are among those that the prior of {attack.label} ({name}) learned"
        return sentence if overlap else ""
    return f"the prior of {attack.label} ({name}) was trained on {about.data}, which is audited"


def prior_of(attack: Choice) -> Manifest | None:
    """What the file of an attack's prior says of it; None where it has none, or draws no faces."""
    source = Path(str(attack.settings.get("prior", attack.settings.get("source", STOCK))))
    if source.suffix != SUFFIX or not source.is_file():
        return None
    with suppress(FedauditError):  # whatever is wrong is said where it is used
        return read_prior(source).manifest if _draws_faces(attack) else None
    return None


def _draws_faces(attack: Choice) -> bool:
    """Whether an attack uses a face prior; of one that is not installed, its settings say it.

    Reports ask this of studies in run folders, and run no code that these name.
    """
    if attack.name not in names("attacks"):
        return bool({"prior", "source"} & set(attack.settings))
    return Knowledge.AUXILIARY in create("attacks", attack.name, attack.settings).needs


def common_photos(data: Choice, others: Iterable[str]) -> str:
    """How many of the audited folder's photos are among others, in words; "" for none."""
    path = data.settings.get("path")
    own = photo_hashes(Path(str(path)).expanduser()) if path else ()
    count = sum(photo in others for photo in own) if (others := frozenset(others)) else 0
    return f"{count} of the {len(own)} audited photos" if count else ""

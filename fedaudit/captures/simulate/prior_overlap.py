"""Whether an attack's face prior knows the audited photos: then nothing it finds is the update's.

Told apart by names: what a prior was trained on stands in its file (`fedaudit prior train`), and
the synthetic set is drawn by the stock generator. A prior of the user's own in another format says
nothing of its photos, and is not checked.
"""

from pathlib import Path

from fedaudit.core.errors import FedauditError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Study
from fedaudit.models.prior_file import SUFFIX, read_prior

STOCK = "face_gan"


def overlaps(study: Study) -> dict[str, str]:
    """Why the prior of an attack knows the study's photos, by the attack's label."""
    choices = {c.label: c for scenario in study.scenarios for c in scenario.attacks}
    found = {label: _overlap(study.data, choice) for label, choice in choices.items()}
    return {label: why for label, why in found.items() if why}


def _overlap(data: Choice, attack: Choice) -> str:
    source = str(attack.settings.get("prior", attack.settings.get("source", STOCK)))
    trained = Path(source).suffix == SUFFIX and Path(source).is_file()
    if not (trained or (data.name == "synthetic" and source == STOCK)):
        return ""
    try:
        faces = create("attacks", attack.name, attack.settings).needs
        known = read_prior(Path(source)).manifest.data if trained else ""
    except FedauditError:
        return ""  # whatever is wrong is said where it is used
    if Knowledge.AUXILIARY not in faces:
        return ""
    if not trained:
        return f"the generator of {attack.label} ({STOCK}) drew the audited faces itself"
    path = data.settings.get("path")
    names = {data.name} if path is None else {data.name, Path(str(path)).resolve().name}
    if known not in names:
        return ""
    name = Path(source).name
    return f"the prior of {attack.label} ({name}) was trained on {known}, which is audited"

"""The files apart from the photos that decide what a study measures, and their hashes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedaudit.captures.simulate.known_controls import pretraining_sets
from fedaudit.core.errors import UsageError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Study
from fedaudit.core.source import SourceFacts
from fedaudit.data.torchvision_sets import TERMS as RESEARCH_SETS
from fedaudit.files import asset_store
from fedaudit.files.asset_sources import sha256
from fedaudit.files.asset_table import ASSETS
from fedaudit.models.prior_file import SUFFIX, read_prior

_JUDGES = {"sface": ("sface", "face_detector"), "dlib": ("face_embedder",)}
# Assets by registered judge; a user's own brings what it needs.
_GENERATED = frozenset({"synthetic", "expressions"})
# Data sets that the face GAN draws.


def judge_assets(study: Study) -> tuple[str, ...]:
    """The assets without which the study's judges cannot say who a face is, the first's first."""
    names = (name for judge in study.judges for name in _JUDGES.get(judge.name, ()))
    return tuple(dict.fromkeys(names))


def needed_assets(study: Study, source: SourceFacts) -> tuple[str, ...]:
    """The assets that no job can do without."""
    public = {name for scene in study.scenarios for name in pretraining_sets(study, scene).values()}
    sets = sorted({study.data.name, *public})
    assets = [name for name in sets if name in ASSETS]
    draws_faces = any(_draws_faces(c) for scenario in study.scenarios for c in scenario.attacks)
    # The controls' people; of pictures that are no faces the controls are other pictures.
    invents = not study.of_pictures and any(scenario.controls for scenario in study.scenarios)
    assets += ["face_gan"] if draws_faces or _GENERATED.intersection(sets) else []
    needs_alignment = "openpeople" in sets or study.data.settings.get("align")
    assets += ["openpeople"] if invents else []
    assets += ["face_detector"] if invents or needs_alignment else []
    assets += ["lpips_alex"] if source.originals else []
    return tuple(dict.fromkeys(assets))


def barred_assets(study: Study) -> dict[str, str]:
    """Assets of a study whose terms bar commercial use, with these terms."""
    assets = needed_assets(study, SourceFacts())
    terms = {name: ASSETS[name].terms for name in assets if not ASSETS[name].commercial}
    if study.data.name in RESEARCH_SETS:
        terms[study.data.name] = RESEARCH_SETS[study.data.name]
    return terms


def hashes(study: Study, source: SourceFacts) -> dict[str, str]:
    """SHA-256 of judge, perceptual distance, generators and models, as they are at hand now."""
    names = (*needed_assets(study, source), *(judge_assets(study) if source.gallery else ()))
    digests = {f"asset {name}": asset_store.digest(name) for name in names}
    digests |= {f"file {path.name}": sha256(path) for path in _files(study)}
    if study.recording and study.recording.model_sha256:
        digests["model"] = study.recording.model_sha256
    return {name: digest for name, digest in digests.items() if digest}


def _draws_faces(attack: Choice) -> bool:
    """Whether an attack uses the stock generator, or a prior that learned from it."""
    if Knowledge.AUXILIARY not in create("attacks", attack.name, attack.settings).needs:
        return False
    source = Path(str(attack.settings.get("prior", "face_gan")))
    if source.suffix == SUFFIX and source.is_file():
        with suppress(UsageError):  # whatever is wrong is said where it is used
            return read_prior(source).manifest.stock_faces
    return str(source) == "face_gan"


def _files(study: Study) -> Iterator[Path]:
    """Files that settings of plugins name, such as a prior of the user's own."""
    for scene in study.scenarios:
        for choice in (scene.network, scene.method, *scene.defenses, *scene.attacks):
            for value in choice.settings.values():
                if isinstance(value, str) and Path(value).suffix and Path(value).is_file():
                    yield Path(value)

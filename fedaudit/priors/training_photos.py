"""Photos to train a prior on: any folder of face photos, or a registered data set."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.registry import create, lookup
from fedaudit.data.crop import to_tensor
from fedaudit.data.folder import SUFFIXES, read_photo
from fedaudit.data.photo_hashes import photo_files, photo_hashes

LEAST = 8
"""Photos below which nothing is learned."""


@dataclass(frozen=True)
class Photos:
    """Photos for training, and some kept apart to judge it.

    Attributes:
        name: Of the folder or the data set.
        train: `[N, 3, S, S]` in [0, 1].
        held_out: `[M, 3, S, S]` in [0, 1]; M may be 0.
        hashes: Of all photos of a folder (`fedaudit.data.photo_hashes`); none of a data set, which
            its name tells.
        generated: `[G, 3, S, S]`, as `with_generated` adds them; G may be 0.
    """

    name: str
    train: Tensor
    held_out: Tensor
    hashes: tuple[str, ...] = ()
    generated: Tensor = field(default_factory=lambda: torch.empty(0))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`[count, 3, S, S]` at random; half of them are generated where there are such."""
        drawn = self.train[torch.randint(len(self.train), (count,), generator=generator)]
        if len(self.generated):
            half = count // 2
            which = torch.randint(len(self.generated), (half,), generator=generator)
            drawn[:half] = self.generated[which]
        return drawn


def load_photos(
    folder: Path | None,
    data: str | None,
    *,
    size: int,
    hold_out: float = 0.1,
    apart: Sequence[str] = (),
    seed: int = 0,
) -> Photos:
    """The photos in a folder, or of a registered data set where one is named."""
    if data:
        return from_data(data, size=size, hold_out=hold_out, apart=apart, seed=seed)
    assert folder is not None
    return from_folder(folder, size=size, hold_out=hold_out, apart=apart, seed=seed)


def with_generated(photos: Photos, count: int, seed: int = 0) -> Photos:
    """The same, and so many faces that `face_gan` draws: some photos are too few to learn from."""
    size = photos.train.shape[-1]
    faces = FaceGenerator(source="face_gan").load((3, size, size), grayscale=False)
    drawn = faces.draw(count, torch.Generator().manual_seed(seed))
    return replace(photos, generated=drawn)


def from_folder(
    path: Path, *, size: int, hold_out: float = 0.1, apart: Sequence[str] = (), seed: int = 0
) -> Photos:
    """Every photo in a folder and the folders in it, cropped to its central square.

    Args:
        path: The folder; subfolders are taken for people.
        size: Side of the photos in pixels.
        hold_out: Part that is kept apart: whole people where there are ten subfolders or more.
        apart: People who are kept apart, in place of a part at random: those of an audit.
        seed: Decides which are kept apart.
    """
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"the photo folder {path} {what}. Give a folder of face photos.")
    files = photo_files(path)
    if len(files) < LEAST:
        raise DataError(
            f"{path} holds {len(files)} photos ({', '.join(sorted(SUFFIXES))}): a prior needs at "
            f"least {LEAST}, and some hundred to be of use. Is it the right folder?"
        )
    images = to_tensor([read_photo(file) for file in files], size)
    people = [str(file.parent.relative_to(path)) for file in files]
    split = _split(path.resolve().name, images, people, hold_out, apart, seed)
    return replace(split, hashes=photo_hashes(path))


def from_data(
    name: str, *, size: int, hold_out: float = 0.1, apart: Sequence[str] = (), seed: int = 0
) -> Photos:
    """The photos of a registered data set; arguments as in `from_folder`.

    A `ConfigError` where the set needs settings, so that its name alone does not say it.
    """
    parameters = [
        p.name
        for p in inspect.signature(lookup("data", name)).parameters.values()
        if p.default is p.empty
    ]
    if parameters:
        raise ConfigError(
            f"data set {name!r} needs {', '.join(parameters)}. Give the folder of photos instead: "
            "fedaudit prior train FOLDER"
        )
    faces = create("data", name, {"size": size})
    people = faces.people if faces.has_identities else [""] * len(faces.people)
    return _split(name, faces.images, people, hold_out, apart, seed)


def _split(
    name: str,
    images: Tensor,
    people: list[str],
    hold_out: float,
    apart: Sequence[str],
    seed: int,
) -> Photos:
    noise = torch.Generator().manual_seed(seed)
    names = sorted(set(people))
    if apart:
        if unknown := sorted(set(apart) - set(names)):
            raise DataError(
                f"{name} has no {', '.join(unknown)} to keep apart. It has {', '.join(names[:20])}"
                f"{' …' if len(names) > 20 else ''}."
            )
        mask = torch.tensor([person in apart for person in people])
    elif len(names) >= 10:  # whole people: what a prior knows of strangers is what counts
        order = torch.randperm(len(names), generator=noise)[: round(hold_out * len(names))]
        held_out = {names[int(i)] for i in order}
        mask = torch.tensor([person in held_out for person in people])
    else:
        mask = torch.zeros(len(images), dtype=torch.bool)
        mask[torch.randperm(len(images), generator=noise)[: round(hold_out * len(images))]] = True
    return Photos(name, images[~mask], images[mask])

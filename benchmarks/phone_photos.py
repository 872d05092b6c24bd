"""Folders of photos as phones take them: whose face is taken of several, and how fast it is.

    python benchmarks/phone_photos.py folder FOLDER   # ten people, eight photos each, to audit
    python benchmarks/phone_photos.py speed           # 1,000 photos of 12 megapixels
    python benchmarks/phone_photos.py speed FOLDER    # those of a folder that is there
    python benchmarks/phone_photos.py subject         # whose face each rule takes

Scenes are put together from OpenPeople's pictures, so nobody is shown, before photos that
scikit-image ships, with a sensor's grain: a person in focus, 8 to 30 % of the photo's short side
wide, in its inner half; in some scenes others, nearer and out of focus, or farther away. `speed`
makes 100 scenes (`--scenes`) and saves each as often as 1,000 photos take, with another comment: to
the cache they are different.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageFilter

from fedaudit.data.face_detector import Face, find_faces
from fedaudit.data.folder import align_folder
from fedaudit.data.subject import by_prominence, focus
from fedaudit.files import asset_store
from fedaudit.study.worker import peak_memory

PEOPLE, PHOTOS = range(1, 11), ("studio_portrait", "amateur_selfie", "amateur_posture")
BACKGROUNDS = ("coffee", "chelsea", "rocket")
OTHERS = ("nobody", "nobody", "nearer", "farther", "both")
TUNED, REPORTED = (1, 2, 3, 4, 5), (6, 7, 8, 9, 10)
"""People whose scenes chose the rule, and those of whom it is reported."""
PREPARED = 1000
"""Photos of `speed`."""


@dataclass(frozen=True)
class Cutout:
    """A person's head and shoulders; center and width of the face in it, in pixels."""

    picture: Image.Image
    center: tuple[float, float]
    width: float


@dataclass(frozen=True)
class Scene:
    """A photo; center and width of its subject's face, in pixels."""

    photo: Image.Image
    center: tuple[float, float]
    width: float

    def shows(self, face: Face) -> bool:
        """Whether a face that was found is the subject's."""
        left, top, right, bottom = face.box
        across, down = (left + right) / 2 - self.center[0], (top + bottom) / 2 - self.center[1]
        near = abs(across) < 0.4 * self.width and abs(down) < 0.5 * self.width
        return near and 0.5 < face.width / self.width < 2


@cache
def cutouts(person: int) -> tuple[Cutout, ...]:
    """Of one of OpenPeople's: three photos, and the sixteen expressions of a sheet."""
    folder = asset_store.path("openpeople") / f"P{person:03d}" / "assets"
    pictures = [Image.open(folder / f"{name}.jpg").convert("RGB") for name in PHOTOS]
    sheet = Image.open(folder / "emotions_sheet.jpg").convert("RGB")
    wide, high = sheet.width // 4, sheet.height // 4
    boxes = [
        (x * wide, y * high, x * wide + wide, y * high + high) for y in range(4) for x in range(4)
    ]
    pictures += [sheet.crop(box) for box in boxes]
    found = [(picture, find_faces(picture, (1280, 640, 320), 0.8)) for picture in pictures]
    return tuple(_cut(picture, faces[0]) for picture, faces in found if faces)


def _cut(picture: Image.Image, face: Face) -> Cutout:
    left, top, right, bottom = face.box
    wide, x, y = face.width, (left + right) / 2, (top + bottom) / 2
    start = max(0, int(x - 1.3 * wide)), max(0, int(y - 1.2 * wide))
    end = min(picture.width, int(x + 1.3 * wide)), min(picture.height, int(y + 1.6 * wide))
    return Cutout(picture.crop((*start, *end)), (x - start[0], y - start[1]), wide)


def scene(person: int, others: str, megapixels: float, draw: np.random.Generator) -> Scene:
    """A photo of a person, with `others`: "nobody", "nearer", "farther" or "both"."""
    high = int((megapixels * 0.75e6) ** 0.5)
    size = (high * 4 // 3, high) if draw.random() < 0.5 else (high, high * 4 // 3)
    background = getattr(skimage.data, BACKGROUNDS[draw.integers(len(BACKGROUNDS))])()
    photo = Image.fromarray(background).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    width = float(min(size) * draw.uniform(0.08, 0.3))
    center = (float(size[0] * draw.uniform(0.27, 0.73)), float(size[1] * draw.uniform(0.27, 0.73)))
    strangers = [other for other in PEOPLE if other != person]
    if others in {"farther", "both"}:
        for _ in range(draw.integers(1, 4)):
            place = size[0] * draw.uniform(0.05, 0.95), size[1] * draw.uniform(0.05, 0.95)
            blur = float(draw.choice([0, 0.02]))
            _paste(photo, _any(strangers, draw), width * draw.uniform(0.25, 0.7), place, blur)
    if others in {"nearer", "both"}:
        across = 0.5 + draw.choice([-1, 1]) * draw.uniform(0.15, 0.5)
        place = size[0] * across, size[1] * draw.uniform(0.2, 0.8)
        large = width * draw.uniform(1.1, 2.5)
        _paste(photo, _any(strangers, draw), large, place, draw.uniform(0.03, 0.1))
    _paste(photo, _any([person], draw), width, center, 0.0)
    return Scene(_grainy(photo, draw), center, width)


def _any(people: Sequence[int], draw: np.random.Generator) -> Cutout:
    of_one = cutouts(people[draw.integers(len(people))])
    return of_one[draw.integers(len(of_one))]


def _paste(
    photo: Image.Image, cutout: Cutout, width: float, at: tuple[float, float], blur: float
) -> None:
    scale = max(width, 30.0) / cutout.width
    size = tuple(max(1, round(side * scale)) for side in cutout.picture.size)
    part = cutout.picture.resize(size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    if blur:
        part = part.filter(ImageFilter.GaussianBlur(float(blur * width)))
    corner = tuple(round(a - c * scale) for a, c in zip(at, cutout.center, strict=True))
    photo.paste(part, corner)  # type: ignore[arg-type]


def _grainy(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    pixels = np.asarray(photo).astype(np.int16)
    grain = _grain(max(photo.size) + 64)
    left, top = draw.integers(64, size=2)
    pixels += grain[top : top + photo.height, left : left + photo.width]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@cache
def _grain(side: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 4, (side, side, 1)).astype(np.int16)


def write_folder(folder: Path, photos: int, megapixels: float) -> int:
    """People's folders, with what goes wrong in real ones: turned photos, no face, no photo."""
    draw = np.random.default_rng(1)
    for person in PEOPLE:
        inside = folder / f"person-{person}"
        inside.mkdir(parents=True, exist_ok=True)
        for k in range(photos):
            photo = scene(person, OTHERS[k % len(OTHERS)], megapixels, draw).photo
            exif = photo.getexif()
            if k % 3 == 1:  # held sideways: the file says so
                exif[0x0112] = 6
                photo = photo.rotate(90, expand=True)
            photo.save(inside / f"IMG_{k:04d}.jpg", quality=88, exif=exif)
    first = folder / "person-1"
    Image.new("RGB", (4032, 3024), (90, 120, 80)).save(first / "IMG_9000.jpg")
    scene(1, "nobody", megapixels, draw).photo.rotate(90, expand=True).save(first / "IMG_9001.jpg")
    (first / "IMG_9002.jpg").write_bytes(b"cut off")
    return len(list(folder.rglob("*.jpg")))


def speed(folder: Path, megapixels: float, scenes: int) -> None:
    """CPU seconds, wall time and memory in which photos are aligned, and again from the cache.

    Those of `folder`, where it is there; else 1,000 that are made.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = folder
        if not root.is_dir():
            root = Path(temporary) / "faces"
            with ProcessPoolExecutor(1) as apart:  # whose memory is not counted
                apart.submit(_write_copies, root, megapixels, scenes).result()
        files = list(root.rglob("*.jpg"))
        mean = sum(file.stat().st_size for file in files) / len(files) / 1e6
        print(f"{len(files)} photos, {mean:.1f} MB each")
        os.environ["FEDAUDIT_CACHE"] = str(_cache_beside(Path(temporary)))
        for label in ("faces looked for", "again, as kept"):
            wall, cpu = time.monotonic(), time.process_time()
            aligned = align_folder(str(root), 112, lambda done, total: None)
            spent = time.monotonic() - wall, time.process_time() - cpu
            print(
                f"{label}: {spent[1]:.1f} CPU s, {1e3 * spent[1] / len(files):.0f} s for 1,000; "
                f"{spent[0]:.0f} s of {os.cpu_count()} cores; {peak_memory() / 1e9:.1f} GB at most",
                flush=True,
            )
        print(f"aligned {len(aligned.sources)}, several faces in {len(aligned.several)}")


def _write_copies(root: Path, megapixels: float, scenes: int) -> None:
    """1,000 files of so many scenes."""
    draw = np.random.default_rng(2)
    for k in range(scenes):
        person = PEOPLE[k % len(PEOPLE)]
        photo = scene(person, OTHERS[k // len(PEOPLE) % len(OTHERS)], megapixels, draw).photo
        inside = root / f"person-{person}"
        inside.mkdir(parents=True, exist_ok=True)
        photo.save(inside / f"{k}.jpg", quality=88)
        whole = (inside / f"{k}.jpg").read_bytes()
        for copy in range(PREPARED // scenes):  # an empty comment after the start of the image
            comment = b"\xff\xfe\x00\x03" + bytes([copy % 256])
            (inside / f"{k}-{copy}.jpg").write_bytes(whole[:2] + comment + whole[2:])
        (inside / f"{k}.jpg").unlink()


def _cache_beside(folder: Path) -> Path:
    """An empty cache folder that has the downloaded assets of the user's."""
    cache_folder = folder / "cache"
    cache_folder.mkdir()
    for asset in ("face_detector", "openpeople"):
        os.environ[f"FEDAUDIT_ASSET_{asset.upper()}"] = str(asset_store.path(asset))
    return cache_folder


RULES: Mapping[str, Callable[[Image.Image, Face], float]] = {
    "largest": lambda photo, face: face.width,
    "surest": lambda photo, face: face.score,
    "score × area": lambda photo, face: face.score * face.width**2,
    "focus": focus,
    "focus × width": lambda photo, face: focus(photo, face) * face.width,
}


def subject(photos: int) -> None:
    """How often each rule takes the subject's face, of the scenes in which several were found."""
    heads = ["people", "others", "scenes", "not found", *RULES, "**prominence** (ours)"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for label, people in (("p06–p10, reported", REPORTED), ("p01–p05, tuned on", TUNED)):
        for others in ("nearer", "farther", "both"):
            draw = np.random.default_rng(people[0])
            right: Counter[str] = Counter()
            several = missed = 0
            for k in range(photos):
                shot = scene(people[k % len(people)], others, 3, draw)
                faces = find_faces(shot.photo)
                missed += not any(shot.shows(face) for face in faces)
                if len(faces) < 2 or not any(shot.shows(face) for face in faces):
                    continue
                several += 1
                for name, rule in RULES.items():
                    right[name] += shot.shows(max(faces, key=lambda face: rule(shot.photo, face)))
                right["ours"] += shot.shows(by_prominence(shot.photo, faces)[0])
            shares = [
                f"{right[name] / several:.0%}".replace("%", " %") for name in (*RULES, "ours")
            ]
            print(
                f"| {label} | {others} | {several} | {missed} | {' | '.join(shares)} |", flush=True
            )


def main() -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("folder", "speed", "subject"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("phone-photos"))
    parser.add_argument(
        "--photos", type=int, default=8, help="A person; scenes of a kind, for subject."
    )
    parser.add_argument("--scenes", type=int, default=100, help="Different ones, for speed.")
    parser.add_argument("--megapixels", type=float, default=12.2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "folder":
        count = write_folder(options.folder, options.photos, options.megapixels)
        print(f"{count} photos of {len(PEOPLE)} people: {options.folder}")
    elif options.what == "speed":
        speed(options.folder, options.megapixels, options.scenes)
    else:
        subject(options.photos)


if __name__ == "__main__":
    main()

import json
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedaudit.data import openpeople as pictures
from fedaudit.data.alignment import TEMPLATE, align
from fedaudit.data.face_detector import Point, find_faces
from fedaudit.data.openpeople import openpeople
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.scoring.embedder import load_embedder


def photo(person: int = 1, name: str = "studio_portrait") -> Image.Image:
    return Image.open(asset_store.path("openpeople") / f"P{person:03d}/assets/{name}.jpg")


def turned(angle: float, scale: float, center: float) -> list[Point]:
    """The template's points, about (`center`, `center`)."""
    a, b = scale * cos(radians(angle)), scale * sin(radians(angle))
    from_middle = [(x - 56, y - 74) for x, y in TEMPLATE]
    return [(a * x - b * y + center, b * x + a * y + center) for x, y in from_middle]


@pytest.mark.parametrize("angle", [0, 20, 90, -135])
@pytest.mark.parametrize("scale", [0.5, 1, 3.7])
def test_the_points_go_to_the_template(angle: float, scale: float) -> None:
    size = 600
    points = turned(angle, scale, size / 2)
    rows, columns = np.mgrid[:size, :size] + 0.5
    for k, (x, y) in enumerate(points):  # a soft spot at each point, which must land in its place
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (3 * scale) ** 2))
        aligned = align(Image.fromarray(np.uint8(spot)), tuple(points), 112)
        light = np.asarray(aligned)[:, :, 0].astype(float)
        place = np.mgrid[:112, :112] + 0.5
        middle = [(light * axis).sum() / light.sum() for axis in (place[1], place[0])]
        assert middle == pytest.approx(TEMPLATE[k], abs=0.3)


def test_a_face_is_the_same_whatever_the_photo_s_size_and_turn() -> None:
    upright = photo()
    plain = align(upright, find_faces(upright)[0].points, 64)
    tilted = upright.rotate(12, Image.Resampling.BICUBIC).resize((700, 700))
    again = align(tilted, find_faces(tilted)[0].points, 64)
    one, two = (np.asarray(f.convert("L"), float)[8:56, 8:56].ravel() for f in (plain, again))
    assert np.corrcoef(one, two)[0, 1] > 0.85  # the detector levels the eyes to some 3 degrees


def test_no_face_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    assert find_faces(Image.fromarray(noise)) == ()


def test_the_largest_face_comes_first() -> None:
    page = Image.new("RGB", (1500, 900), "white")
    page.paste(photo(1).resize((400, 400)), (50, 50))
    page.paste(photo(2).resize((800, 800)), (600, 50))
    large, small = find_faces(page)
    assert large.points[2][0] > 600 > small.points[2][0]
    assert large.width > 1.5 * small.width


@pytest.mark.slow
@pytest.mark.parametrize("side", [640, 320])
def test_detection_agrees_with_opencv(side: int) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = photo(4, "emotions_sheet").resize((side, side * 3 // 4))
    weights = str(asset_store.path("face_detector"))
    detector = cv2.FaceDetectorYN.create(weights, "", picture.size, 0.7, 0.3)
    _, rows = detector.detect(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    faces = find_faces(picture, (side,))
    assert len(faces) == len(rows) > 10
    for row in rows:
        face = min(faces, key=lambda face: abs(face.box[0] - row[0]) + abs(face.box[1] - row[1]))
        assert np.ravel(face.points) == pytest.approx(row[4:14], abs=0.01)
        assert face.score == pytest.approx(row[14], abs=1e-4)


def test_the_stored_points_are_of_the_pictures_that_are_fetched() -> None:
    stored = json.loads(Path(pictures.__file__).with_name("openpeople_points.json").read_text())
    assert stored["pictures"] == ASSETS["openpeople"].unpacked
    assert np.shape(stored["points"]) == (230, 10)


@pytest.mark.slow
def test_the_stored_points_are_those_that_the_detector_finds() -> None:
    folder = asset_store.path("openpeople")
    found = [np.ravel(face) for face in pictures.found_points(folder)]
    assert np.ravel(pictures._points(folder)) == pytest.approx(np.ravel(found), abs=0.02)


@pytest.mark.slow
def test_openpeople_are_ten_people_whom_the_judge_tells_apart() -> None:
    faces = openpeople(size=112)
    assert faces.images.shape == (230, 3, 112, 112)
    assert len(set(faces.people)) == 10
    assert all(faces.people.count(person) == 23 for person in faces.people)
    assert faces.public
    assert (faces.images[:, 0] - faces.images[:, 2]).abs().mean() > 0.05  # in color
    vectors = load_embedder().embed(faces.images)
    alike = (vectors @ vectors.T).fill_diagonal_(-1)
    first = [
        faces.people[k] == person for k, person in zip(alike.argmax(1), faces.people, strict=True)
    ]
    assert sum(first) / len(first) > 0.85  # some are profiles, and its crop is another
    assert openpeople(size=32).images.shape == (230, 3, 32, 32)

"""Generated faces with expressions, and folders of them."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from fedaudit.core.errors import DataError, UnknownNameError
from fedaudit.data.expressions import expression_folder, expressions
from fedaudit.data.face_set import FaceSet
from fedaudit.models.expression_nets import load_expressions
from fedaudit.models.generator import load_generator

SMALL = {"people": 6, "photos": 2, "classes": ("happy", "neutral")}


@pytest.fixture(scope="module")
def moods() -> FaceSet:
    return expressions(size=64, **SMALL)  # type: ignore[arg-type]


def test_the_classifiers_say_what_their_reference_ports_say() -> None:
    """The logits of one face, from ports of both networks that share no code with ours."""
    drawn = torch.randn(1, 100, generator=torch.Generator().manual_seed(5))
    both = load_expressions()
    with torch.no_grad():
        face = load_generator("face_gan")(drawn)
        face_api, fer = both.face_api(face)[0], both.fer(face)[0]
    expected = [-5.7918, -14.3666, -6.1961, 1.3598, -16.1082, -7.3716, -9.0556]
    torch.testing.assert_close(face_api, torch.tensor(expected), atol=2e-3, rtol=0)
    expected = [1.5475, -8.8753, -0.6358, -0.2051, 0.8383, 0.0792, 2.2391]
    torch.testing.assert_close(fer, torch.tensor(expected), atol=2e-3, rtol=0)


def test_both_classifiers_are_sure_of_every_label(moods: FaceSet) -> None:
    both = load_expressions()
    for network in (both.fer, both.face_api):
        names = list(network.names)  # type: ignore[arg-type]
        with torch.no_grad():
            chances = network(moods.images).softmax(1)
        own = torch.tensor([names.index(name) for name in moods.expressions])
        assert float(chances.gather(1, own[:, None]).min()) > 0.59  # 0.6, rounded in another batch


def test_classes_are_even_and_faces_differ(moods: FaceSet) -> None:
    firsts = Counter(moods.expressions)
    assert set(firsts) == {"happy", "neutral"}
    assert min(firsts.values()) >= 4
    assert Counter(moods.people) == dict.fromkeys((f"p{k:03d}" for k in range(1, 7)), 2)
    flat = moods.images.flatten(1)
    apart = torch.cdist(flat, flat) + 99 * torch.eye(12)
    assert float(apart.min()) > 1  # no face twice
    own = apart.view(6, 2, 6, 2)[range(6), 0, range(6), 1].mean()
    assert float(own) < 0.6 * float(apart[apart < 99].mean())  # a person looks like itself


def test_the_same_faces_from_the_cache_and_at_another_size(
    moods: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.data.expressions.load_expressions", lambda: pytest.fail("asked"))
    small = expressions(size=32, **SMALL)  # type: ignore[arg-type]
    assert small.images.shape == (12, 3, 32, 32)
    assert small.expressions == moods.expressions
    averaged = torch.nn.functional.avg_pool2d(moods.images, 2)
    assert float((small.images - averaged).abs().mean()) < 0.02


def test_no_agreement_is_no_label() -> None:
    both = load_expressions()
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert both.agreed(noise, 0.999).tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"classes": ("happy", "hapy")}, UnknownNameError, "did you mean 'happy'"),
        ({"classes": ("happy",)}, DataError, "at least two expressions"),
        ({"classes": ("happy", "happy")}, DataError, "each once"),
        ({"people": 2}, DataError, "a person a class"),
        ({"photos": 1}, DataError, "two photos of each"),
        ({"confidence": 1.0}, DataError, r"confidence in \[0, 1\)"),
        ({"spread": 0.0}, DataError, r"spread in\s+\(0, 1\)"),
    ],
)
def test_settings_that_cannot_be(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        expressions(**settings)  # type: ignore[arg-type]


def test_what_the_generator_never_draws_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedaudit.data.expressions._MOST", 50)
    with pytest.raises(DataError, match=r"1 disgusted.* leave that expression out"):
        expressions(people=2, photos=2, classes=("happy", "disgusted"), confidence=0.95, seed=3)


# --- a user's folders -----------------------------------------------------------------------------


def test_a_folder_an_expression(tmp_path: Path) -> None:
    for name in ("glad", "sad"):
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.new("RGB", (40, 40), (80 * k, 10, 10)).save(tmp_path / name / f"{k}.png")
    faces = expression_folder(path=str(tmp_path), size=32)
    assert faces.expressions == ("glad",) * 3 + ("sad",) * 3
    assert not faces.has_identities
    assert len(set(faces.people)) == 6


def test_a_folder_without_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder is an expression"):
        expression_folder(path=str(tmp_path))

import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedaudit.data.crop import resize, square, to_tensor

side = st.integers(16, 120)


@given(side, side)
def test_square_is_central_and_as_large_as_can_be(width: int, height: int) -> None:
    photo = Image.new("L", (width, height))
    photo.putpixel((width // 2, height // 2), 255)
    cut = square(photo)
    assert cut.size == (min(width, height),) * 2
    assert cut.getextrema() == (0, 255)


@given(st.integers(1, 90), st.sampled_from(["L", "RGB", "RGBA", "P", "I;16"]))
def test_any_mode_becomes_three_channels(size: int, mode: str) -> None:
    images = to_tensor([Image.new(mode, (20, 20)), Image.new("L", (9, 9), 255)], size)
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert torch.equal(images[1], torch.ones(3, size, size))


@given(st.integers(8, 100), st.integers(0, 3))
def test_resize_stays_in_range(size: int, seed: int) -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).round()
    resized = resize(noise, size)
    assert resized.shape == (1, 3, size, size)
    assert resized.min() >= 0
    assert resized.max() <= 1
    assert torch.equal(resize(noise, 32), noise)

"""Images of strangers: RGB, or a short reason why not."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest

from tonics.features.images import BadImage, open_image, probe_image

Image = pytest.importorskip("PIL.Image")

LIMIT = 10_000


def drawn(size=(40, 30), mode="RGB"):
    """A picture with structure: a gradient and a red square."""
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(ramp)] * 3)
    image.paste((255, 0, 0), (5, 5, 15, 15))
    return image.convert(mode)


def encoded(kind="JPEG", mode="RGB", **how):
    file = io.BytesIO()
    drawn(mode=mode).save(file, kind, **how)
    return file.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IEND", b"")


JPEG, PNG = encoded(), encoded("PNG")
# what is in the file, what a probe says (None: not seen without decoding), what opening says
BROKEN = {
    "empty": (b"", "empty file", "empty file"),
    "text": (b"<html>404 Not Found</html>" * 9, "not an image", "not an image"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not an image", "not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", *["not an image"] * 2),
    "truncated jpeg": (JPEG[:-40], "truncated image", "truncated image"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated image", "truncated image"),
    "truncated png": (PNG[:-40], "truncated image", "truncated image"),
    "truncated webp": (encoded("WEBP")[:-20], "truncated image", "truncated image"),
    "truncated bmp": (encoded("BMP")[:-20], "truncated image", "truncated image"),
    "start of a jpeg": (JPEG[:20], "truncated image", "truncated image"),
    "start of a png": (PNG[:12], "truncated image", "truncated image"),
    "only the ends of a jpeg": (JPEG[:20] + JPEG[-20:], *["damaged image"] * 2),
    "altered png": (PNG[:60] + b"?" * 20 + PNG[80:], None, "damaged image"),
    "huge": (png_header(60_000, 60_000), "too many pixels", "too many pixels"),
    "bit too large": (png_header(101, 100), "too many pixels", "too many pixels"),
    "colours unknown": (encoded("TIFF", "F"), None, "unsupported pixel type"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_have_a_reason(tmp_path, case):
    data, probed, opened = BROKEN[case]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for read, reason in ((probe_image, probed), (open_image, opened)):
        if reason is None:
            read(path, LIMIT)
            continue
        with pytest.raises(BadImage) as error:
            read(path, LIMIT)
        assert error.value.reason == reason
        assert str(error.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "no.jpg", "no such file"), (tmp_path, "cannot be read")):
        for read in (probe_image, open_image):
            with pytest.raises(BadImage) as error:
                read(path, LIMIT)
            assert error.value.reason == reason


def test_the_reason_survives_a_process_border(tmp_path):
    with pytest.raises(BadImage) as error:
        open_image(tmp_path / "no.jpg", LIMIT)
    assert pickle.loads(pickle.dumps(error.value)).reason == "no such file"


def test_the_limit_is_on_width_times_height(tmp_path):
    path = tmp_path / "photo.png"
    drawn((100, 100)).save(path)
    assert probe_image(path, 10_000) == (100, 100)
    with pytest.raises(BadImage, match=r"too many pixels \(100 x 100\), expected at most 9999"):
        probe_image(path, 9_999)


def test_the_limit_may_be_above_pillows_own(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    drawn((100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path, 20_000).size == (100, 100)


def test_a_probe_does_not_decode_what_looks_whole(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(BROKEN["altered png"][0])
    assert probe_image(path, LIMIT) == (40, 30)


def test_bytes_after_the_end_do_not_matter(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG + bytes(500))
    assert probe_image(path, LIMIT) == open_image(path, LIMIT).size == (40, 30)


def test_exif_rotation_is_ignored(tmp_path):
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6
    drawn().save(path, exif=exif)
    assert probe_image(path, LIMIT) == open_image(path, LIMIT).size == (40, 30)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        *(("TIFF", mode) for mode in ("CMYK", "YCbCr", "RGBA")),
        ("GIF", "P"),
        ("WEBP", "RGBA"),
        ("BMP", "RGB"),
        ("PPM", "L"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, kind, mode):
    path = tmp_path / "photo"
    drawn(mode=mode).save(path, kind)
    image = open_image(path, LIMIT)
    assert image.mode == "RGB"
    grey = "1" if mode == "1" else "L"
    reference = drawn(mode=grey if mode in ("1", "L", "LA") else "RGB").convert("RGB")
    difference = np.abs(np.asarray(image, int) - np.asarray(reference, int))
    assert difference.mean() < 20, "not the same picture"


def test_sixteen_bit_greys_are_scaled(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(path)
    assert np.asarray(open_image(path, LIMIT))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path, mode):
    path = tmp_path / "photo.png"
    image = drawn(mode="RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((255, 0, 0, 255), (5, 5, 15, 15))
    if mode == "P":
        image = image.quantize(16)
    image.convert(mode).save(path)
    pixels = np.asarray(open_image(path, LIMIT))
    assert pixels[20, 30].tolist() == [255, 255, 255]
    assert pixels[10, 10].tolist() != [255, 255, 255]


def test_a_transparent_colour_lies_on_white(tmp_path):
    path = tmp_path / "photo.png"
    drawn().save(path, transparency=(255, 0, 0))
    assert np.asarray(open_image(path, LIMIT))[10, 10].tolist() == [255, 255, 255]


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    path = tmp_path / "photo.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert np.asarray(open_image(path, LIMIT))[4, 4].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_damage_escapes_as_another_error(tmp_path):
    """Cut and alter files of every format anywhere: RGB or BadImage, nothing else."""
    rng = np.random.default_rng(0)
    kinds = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
    path = tmp_path / "photo"
    bad = 0
    for kind in kinds:
        whole = encoded(kind)
        for _ in range(25):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            for read in (probe_image, open_image):
                try:
                    read(path, LIMIT)
                except BadImage:
                    bad += 1
    assert bad > 200


def test_an_opened_image_keeps_no_file(tmp_path):
    path = tmp_path / "photo.png"
    drawn().save(path)
    before = len(os.listdir("/proc/self/fd"))
    kept = [open_image(path, LIMIT) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(image.getpixel((10, 10)) == (255, 0, 0) for image in kept)


@pytest.mark.shared
def test_a_photo_that_is_really_truncated(shared):
    (path,) = (shared / "flickr8k" / "broken").iterdir()
    for read in (probe_image, open_image):
        with pytest.raises(BadImage) as error:
            read(path, 10**8)
        assert error.value.reason == "truncated image"


@pytest.mark.shared
def test_whole_photos_are_probed_right(shared):
    for path in sorted((shared / "coco_mini" / "images").iterdir())[:60]:
        assert probe_image(path, 10**8) == open_image(path, 10**8).size

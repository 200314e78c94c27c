"""Tars read in place: all that the standard library writes is found, and only that is read."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tonics.errors import InputError
from tonics.features.images import BadImage, image_exists, inspect_image, open_image, probe_image
from tonics.features.tars import CUT_SHORT, DAMAGED, Tar, open_tar, split_member

Image = pytest.importorskip("PIL.Image")

LIMIT = 10_000
NAMES = ["a.jpg", "deep/er/b.jpg", "x" * 120 + "/" + "y" * 150 + ".jpg", "süß.jpg", "empty.txt"]


def drawn(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_standard_library(tmp_path: Path, form: int) -> None:
    names = NAMES if form != tarfile.USTAR_FORMAT else [*NAMES[:2], "p" * 120 + "/q.jpg"]
    members = {name: os.urandom(number * 300) for number, name in enumerate(names)}
    tar = Tar(write_tar(tmp_path / "t.tar", members, form))
    assert {name: tar.read(member) for name, member in tar.members.items()} == members


def test_what_must_not_be_read_is_listed_with_its_problem(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, kind in (
            ("folder", tarfile.DIRTYPE), ("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE),
            ("device", tarfile.CHRTYPE), ("../up.jpg", tarfile.REGTYPE),
            ("a/../../up.jpg", tarfile.REGTYPE), ("/etc/x.jpg", tarfile.REGTYPE),
            ("./fine.jpg", tarfile.REGTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    found = Tar(tmp_path / "t.tar")
    assert [(m.name, m.problem) for m in found.walk()] == [
        ("soft", "member is a link"), ("hard", "member is a link"),
        ("device", "member is no plain file"), ("../up.jpg", "member leaves its folder"),
        ("a/../../up.jpg", "member leaves its folder"), ("/etc/x.jpg", "member leaves its folder"),
        ("fine.jpg", ""),
    ]  # fmt: skip
    assert list(found.members) == ["fine.jpg"]


def test_a_member_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.jpg")
    info.size = 1 << 34  # beyond what octal digits hold
    path = tmp_path / "t.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert next(m.problem for m in Tar(path).walk()) == "member larger than 512 MiB"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    assert next(m.problem for m in Tar(path).walk()) == "member larger than 512 MiB"


def test_a_tar_cut_anywhere_keeps_what_is_whole(tmp_path: Path) -> None:
    members = {f"{n}.jpg": os.urandom(700) for n in range(4)}
    whole = write_tar(tmp_path / "t.tar", members).read_bytes()
    end = 4 * (512 + 1024)
    for keep in (*range(0, end, 97), end):
        (tmp_path / "cut.tar").write_bytes(whole[:keep])
        tar = Tar(tmp_path / "cut.tar")
        listed = list(tar.walk())
        assert listed[-1].problem == CUT_SHORT
        assert {m.name for m in listed if not m.problem} == set(tar.members)
        assert all(tar.read(m) == members[name] for name, m in tar.members.items())
        assert len(tar.members) == (keep + (1024 - 700)) // (512 + 1024)
    damaged = bytearray(whole)
    damaged[512 + 1024 + 130] ^= 1
    (tmp_path / "t.tar").write_bytes(damaged)
    assert [m.problem for m in Tar(tmp_path / "t.tar").walk()] == ["", DAMAGED]


def with_size(size: bytes, kind: bytes = b"0") -> bytes:
    """A header that says its member has that size."""
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = size, kind
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g", b"5"])
@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (b"-0000001000\0", DAMAGED), (b"-1000      \0", DAMAGED), (b"+0000000001\0", DAMAGED),
        (b"00000_00001\0", DAMAGED), (b"\x80" + b"\xff" * 11, CUT_SHORT),
        (b"\xff" * 12, CUT_SHORT), (b"\x80\0\0\0\x7f" + b"\xff" * 7, CUT_SHORT),
    ],
)  # fmt: skip
def test_sizes_that_no_file_has(tmp_path: Path, size: bytes, problem: str, kind: bytes) -> None:
    whole = write_tar(tmp_path / "t.tar", {"0.jpg": b"fine"}).read_bytes()[:1024]
    (tmp_path / "t.tar").write_bytes(whole + with_size(size, kind) + bytes(2048))
    tar = Tar(tmp_path / "t.tar")
    assert next(iter(tar.members)) == "0.jpg"
    assert list(tar.members) == ["0.jpg"]
    assert list(tar.walk())[-1].problem == problem


@pytest.mark.parametrize("digits", [20, 21, 5000])
def test_sizes_of_too_many_digits(tmp_path: Path, digits: int) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"size": "9" * digits}
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    assert not (set(Tar(tmp_path / "t.tar").members) - {"a.jpg"})
    data = b"9" * 5000 + b" size=1\n"
    header = with_size(b"%011o\0" % len(data), b"x")
    (tmp_path / "t.tar").write_bytes(header + data + bytes(1024))
    assert not Tar(tmp_path / "t.tar").members


def test_what_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(b"<html>404</html>" * 99)
    assert [m.problem for m in Tar(tmp_path / "t.tar").walk()] == [DAMAGED]
    with tarfile.open(tmp_path / "z.tar", "w:gz"):
        pass
    with pytest.raises(InputError, match="compressed with gzip, expected a plain tar; unpack"):
        list(Tar(tmp_path / "z.tar").walk())


def test_images_are_opened_from_tars(tmp_path: Path) -> None:
    data = drawn()
    path = write_tar(tmp_path / "t.tar", {"a.png": data, "half.png": data[:40], "b/c.png": data})
    (tmp_path / "a.png").write_bytes(data)
    for name in ("a.png", "b/c.png"):
        assert probe_image(path / name, LIMIT) == open_image(path / name, LIMIT).size == (8, 6)
        assert inspect_image(path / name, LIMIT) == inspect_image(tmp_path / "a.png", LIMIT)
        assert image_exists(path / name)
    assert inspect_image("anything", LIMIT, data) == inspect_image(tmp_path / "a.png", LIMIT)
    for member, reason in (("half.png", "truncated image"), ("no.png", "no such file")):
        with pytest.raises(BadImage) as error:
            open_image(path / member, LIMIT)
        assert error.value.reason == reason
    assert not image_exists(path / "no.png")
    assert not image_exists(tmp_path / "no.tar" / "a.png")
    with pytest.raises(BadImage, match="no such file"):
        open_image(tmp_path / "no.tar" / "a.png", LIMIT)


def test_a_folder_may_be_called_a_tar(tmp_path: Path) -> None:
    (tmp_path / "t.tar").mkdir()
    (tmp_path / "t.tar" / "a.png").write_bytes(drawn())
    assert split_member(tmp_path / "t.tar" / "a.png") is None
    assert image_exists(tmp_path / "t.tar" / "a.png")
    assert open_image(tmp_path / "t.tar" / "a.png", LIMIT).size == (8, 6)
    path = write_tar(tmp_path / "t.tar" / "u.tar", {"b.tar/a.png": drawn()})
    assert split_member(path / "b.tar" / "a.png") == (str(path), "b.tar/a.png")


def test_a_tar_that_changed_is_listed_anew(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.png": drawn("red")})
    assert open_image(path / "a.png", LIMIT).getpixel((0, 0)) == (255, 0, 0)
    write_tar(path, {"b.png": drawn("blue"), "a.png": drawn("lime")})
    os.utime(path, (1e9, 1e9))
    assert open_image(path / "a.png", LIMIT).getpixel((0, 0)) == (0, 255, 0)
    assert open_tar(str(path)) is open_tar(str(path))


def test_tars_that_are_no_longer_used_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        path = write_tar(tmp_path / f"{number}.tar", {"a.png": drawn()})
        open_image(path / "a.png", LIMIT)
    assert len(os.listdir("/proc/self/fd")) <= before + 8

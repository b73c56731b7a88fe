"""Pictures are read from files and arrays, refused if unusable, and written whole."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vinograph import RequestError, ResourceError
from vinograph.images import (
    MAX_PIXELS,
    READABLE,
    Size,
    check_output,
    psnr,
    read_metadata,
    read_picture,
    read_pictures,
    resize,
    save,
    to_array,
    to_pictures,
)

WIDTH, HEIGHT = 6, 4


@pytest.fixture
def pixels() -> Any:
    return np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


@pytest.fixture
def picture(pixels: Any) -> Image.Image:
    return Image.fromarray(pixels)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header claims `width` × `height` pixels, of which it has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"not compressed pixels") + chunk(b"IEND", b"")


class TestReading:
    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    def test_png_jpeg_and_webp_are_read(self, picture: Image.Image, tmp_path: Path, ending: str) -> None:
        file = tmp_path / f"picture.{ending}"
        picture.save(file, lossless=True)
        for source in (file, str(file)):
            read = read_picture(source)
            assert (read.mode, read.size) == ("RGB", (WIDTH, HEIGHT))
        if ending != "jpg":
            assert np.array_equal(np.asarray(read_picture(file)), np.asarray(picture))

    def test_the_format_is_that_of_the_content(self, picture: Image.Image, tmp_path: Path) -> None:
        picture.save(tmp_path / "photo.jpg", "PNG")
        assert read_picture(tmp_path / "photo.jpg").size == (WIDTH, HEIGHT)

    @pytest.mark.parametrize("ending", ["avif", "gif", "tiff"])
    def test_further_formats_of_the_users_own_files(self, picture: Image.Image, tmp_path: Path, ending: str) -> None:
        options: dict[str, Any] = {"quality": 100, "subsampling": "4:4:4"} if ending == "avif" else {}
        picture.save(tmp_path / f"picture.{ending}", **options)
        notes: list[str] = []
        (read,) = read_pictures(tmp_path / f"picture.{ending}", notes=notes)
        assert (read.size, notes) == ((WIDTH, HEIGHT), [])
        difference = np.abs(np.asarray(read).astype(int) - np.asarray(picture))
        assert difference.mean() < {"avif": 3, "gif": 1, "tiff": 1e-9}[ending]
        with pytest.raises(RequestError, match="is not a PNG, JPEG or WebP picture"):
            read_picture(tmp_path / f"picture.{ending}", formats=READABLE)

    @pytest.mark.parametrize("ending", ["bmp", "ico", "ppm"])
    def test_other_formats_are_refused(self, picture: Image.Image, tmp_path: Path, ending: str) -> None:
        picture.save(tmp_path / f"picture.{ending}")
        with pytest.raises(RequestError, match="is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture"):
            read_picture(tmp_path / f"picture.{ending}")

    @pytest.mark.parametrize("ending", ["avif", "gif", "tiff", "webp", "png"])
    def test_the_first_of_several_pictures_is_taken(self, tmp_path: Path, ending: str) -> None:
        red, blue = (Image.new("RGB", (WIDTH, HEIGHT), name) for name in ("red", "blue"))
        file = tmp_path / f"picture.{ending}"
        red.save(file, save_all=True, append_images=[blue])
        notes: list[str] = []
        (read,) = read_pictures(file, notes=notes)
        assert notes == [f"image: {file} holds several pictures; the first is taken"]
        pixel = read.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        assert pixel[0] > 240
        assert pixel[2] < 15

    @pytest.mark.parametrize(("mode", "words"), [("I", "32 bits"), ("F", "floats"), ("LAB", r"L\*a\*b\*")])
    def test_a_tiff_whose_white_is_unknown_is_refused(self, tmp_path: Path, mode: str, words: str) -> None:
        Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / "picture.tiff")
        with pytest.raises(RequestError, match=f"has pixels in {words}.*; save it as RGB with 8 or 16"):
            read_picture(tmp_path / "picture.tiff")

    def test_a_tiff_of_16_bits_is_scaled(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, np.uint16)).save(tmp_path / "picture.tiff")
        assert read_picture(tmp_path / "picture.tiff").getpixel((0, 0)) == (40_000 // 257,) * 3

    @pytest.mark.parametrize("ending", ["gif", "tiff"])
    def test_a_size_is_refused_before_pixels_are_decoded(self, tmp_path: Path, ending: str) -> None:
        file = tmp_path / f"picture.{ending}"
        Image.new("L", (WIDTH, HEIGHT)).save(file)
        content = bytearray(file.read_bytes())
        if ending == "gif":
            content[6:10] = struct.pack("<HH", 60_000, 60_000)
        else:
            for tag in (256, 257):
                at = content.index(struct.pack("<HHI", tag, 4, 1))
                content[at + 8 : at + 12] = struct.pack("<I", 60_000)
        file.write_bytes(content)
        with pytest.raises(RequestError, match="over 64 megapixels"):
            read_picture(file)

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
    def test_a_file_that_is_no_picture_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "picture.png").write_bytes(content)
        with pytest.raises(RequestError, match=r"picture.png is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture"):
            read_picture(tmp_path / "picture.png")

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    def test_a_truncated_picture_is_refused(self, tmp_path: Path, ending: str) -> None:
        file = tmp_path / f"picture.{ending}"
        Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(file)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(RequestError, match=r"is damaged|is not a PNG"):
            read_picture(file)

    def test_a_truncated_pil_picture_is_refused(self, tmp_path: Path) -> None:
        """PIL decodes a picture only when its pixels are used."""
        file = tmp_path / "picture.jpg"
        Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:1000])
        with Image.open(file) as opened, pytest.raises(RequestError, match="image is damaged"):
            read_picture(opened)

    def test_a_missing_file_and_a_directory_are_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path / "nowhere.png", tmp_path):
            with pytest.raises(RequestError, match="image: there is no file"):
                read_picture(path)

    @pytest.mark.parametrize("given", [7, None, b"bytes", [1, 2]])
    def test_other_objects_are_refused(self, given: Any) -> None:
        with pytest.raises(RequestError, match="give a path, a PIL picture, or an array"):
            read_picture(given)


class TestUpright:
    ROTATE_90 = 6  # EXIF: the top of the scene is on the right of the file

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    def test_exif_rotation_is_honoured(self, picture: Image.Image, tmp_path: Path, ending: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = self.ROTATE_90
        picture.save(tmp_path / f"picture.{ending}", exif=exif, lossless=True)
        read = read_picture(tmp_path / f"picture.{ending}")
        assert read.size == (HEIGHT, WIDTH)
        if ending != "jpg":
            assert np.array_equal(np.asarray(read), np.rot90(np.asarray(picture), -1))

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    @pytest.mark.parametrize(
        "exif",
        [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"],
    )
    def test_garbled_exif_is_ignored(self, picture: Image.Image, tmp_path: Path, ending: str, exif: bytes) -> None:
        picture.save(tmp_path / f"picture.{ending}", exif=exif)
        assert read_picture(tmp_path / f"picture.{ending}").size == (WIDTH, HEIGHT)

    def test_a_pil_picture_is_not_rotated(self, picture: Image.Image) -> None:
        """diffusers, too, rotates only pictures that it loads itself."""
        picture.getexif()[0x0112] = self.ROTATE_90
        notes: list[str] = []
        (read,) = read_pictures(picture, notes=notes)
        assert read.size == (WIDTH, HEIGHT)
        assert ["EXIF says to turn it" in each for each in notes] == [True]

    def test_transparency_is_dropped(self, tmp_path: Path) -> None:
        colours = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
        Image.fromarray(colours).save(tmp_path / "picture.png")
        notes: list[str] = []
        (read,) = read_pictures(tmp_path / "picture.png", notes=notes)
        assert np.asarray(read).tolist() == [[[255, 0, 0], [255, 0, 0], [0, 0, 0]]]
        assert notes == ["the image is transparent in places; the colours that lie under it there were taken"]
        assert read_pictures(Image.new("RGBA", (2, 2), "white"), notes=notes)
        assert len(notes) == 1, "one without holes is nothing to note"

    def test_a_transparent_palette_colour_is_dropped(self, tmp_path: Path) -> None:
        palette = Image.new("P", (2, 1))
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.putpixel((1, 0), 1)
        palette.save(tmp_path / "picture.png", transparency=1)
        assert np.asarray(read_picture(tmp_path / "picture.png")).tolist() == [[[255, 0, 0], [0, 0, 255]]]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
    def test_pictures_of_every_mode_become_rgb(self, picture: Image.Image, mode: str) -> None:
        assert read_picture(picture.convert(mode)).mode == "RGB"

    def test_sixteen_bits_of_grey_become_eight(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "grey.png")
        assert np.asarray(read_picture(tmp_path / "grey.png"))[0, :, 0].tolist() == [0, 100, 255]


class TestTooLarge:
    """A picture of over 64 megapixels is refused by its header, without decoding."""

    @pytest.mark.parametrize(
        ("width", "height"), [(8001, 8000), (12_000, 12_000), (60_000, 60_000), (1, MAX_PIXELS + 1)]
    )
    def test_a_file_is_refused_without_decoding(self, tmp_path: Path, width: int, height: int) -> None:
        (tmp_path / "huge.png").write_bytes(png_that_claims(width, height))
        with pytest.raises(RequestError, match=r"over 64 megapixels|has over 64 megapixels"):
            read_picture(tmp_path / "huge.png")

    def test_64_megapixels_are_accepted(self, tmp_path: Path) -> None:
        (tmp_path / "large.png").write_bytes(png_that_claims(8000, 8000))
        with pytest.raises(RequestError, match="is damaged"):  # the size was fine, so decoding was tried
            read_picture(tmp_path / "large.png")

    def test_a_pil_picture_is_refused_without_decoding(self, tmp_path: Path) -> None:
        (tmp_path / "huge.png").write_bytes(png_that_claims(8001, 8000))
        with (
            Image.open(tmp_path / "huge.png") as opened,
            pytest.raises(RequestError, match="image is 8001x8000, over 64"),
        ):
            read_picture(opened)

    def test_an_array_is_refused(self) -> None:
        huge = np.broadcast_to(np.uint8(0), (8001, 8000, 3))
        with pytest.raises(RequestError, match="image is 8000x8001, over 64 megapixels"):
            read_picture(huge)

    def test_a_decompression_bomb_in_a_text_chunk_is_refused(self, picture: Image.Image, tmp_path: Path) -> None:
        picture.save(tmp_path / "bomb.png")
        content = (tmp_path / "bomb.png").read_bytes()
        data = b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000)
        bomb = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        (tmp_path / "bomb.png").write_bytes(content[:33] + bomb + content[33:])
        with pytest.raises(RequestError, match=r"is not a PNG|is damaged"):
            read_picture(tmp_path / "bomb.png")


class TestArrays:
    def test_uint8_arrays_are_pixels(self, pixels: Any) -> None:
        assert np.array_equal(np.asarray(read_picture(pixels)), pixels)

    def test_float_arrays_are_read_by_their_range(self, pixels: Any) -> None:
        assert np.array_equal(np.asarray(read_picture((pixels / 127.5 - 1).astype(np.float32))), pixels)
        for kind in (np.float32, np.float64, np.float16):
            read = read_picture((pixels / 255).astype(kind))
            assert np.abs(np.asarray(read).astype(int) - pixels).max() <= (1 if kind is np.float16 else 0)

    @pytest.mark.parametrize(
        "array",
        [np.full((2, 2, 3), 1.01), np.full((2, 2, 3), -1.1), np.full((2, 2, 3), np.nan), np.zeros((2, 2, 3), np.int64)],
    )
    def test_other_values_are_refused(self, array: Any) -> None:
        with pytest.raises(RequestError, match=r"give uint8, or floats within \[0, 1\] or \[-1, 1\]"):
            read_picture(array)

    @pytest.mark.parametrize("shape", [(2, 2), (3, 2, 2), (1, 3, 2, 2), (2, 2, 4), (0, 2, 3)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(RequestError, match=r"give \[height, width, 3\]"):
            read_picture(np.zeros(shape, np.uint8))

    def test_a_picture_survives_conversion_to_an_array(self, picture: Image.Image) -> None:
        array = to_array(picture)
        assert array.shape == (1, 3, HEIGHT, WIDTH)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        (back,) = to_pictures(array.transpose(0, 2, 3, 1))
        assert np.array_equal(np.asarray(back), np.asarray(picture))

    def test_pictures_are_rounded_and_clipped(self) -> None:
        values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 2], np.float32)
        (made,) = to_pictures(np.repeat(values[None, None, :, None], 3, axis=3))
        assert np.asarray(made)[0, :, 0].tolist() == [0, 0, 0, 1, 128, 255, 255]

    def test_resize(self, picture: Image.Image) -> None:
        assert resize(picture, Size(HEIGHT, WIDTH)) is picture
        assert resize(picture, Size(10, 12)).size == (12, 10)

    def test_psnr(self) -> None:
        black = np.zeros((4, 4, 3), np.float32)
        assert psnr(black, black) == float("inf")
        assert psnr(black, black + np.float32(0.1)) == pytest.approx(20)
        assert psnr(black, black + 1) == pytest.approx(0)


class TestSaving:
    @pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp"])
    def test_the_extension_chooses_the_format(self, picture: Image.Image, tmp_path: Path, name: str) -> None:
        save(picture, tmp_path / name)
        with Image.open(tmp_path / name) as read:
            assert read.format == {"png": "PNG", "webp": "WEBP"}.get(name.lower()[2:], "JPEG")
            assert read.size == (WIDTH, HEIGHT)

    def test_metadata_is_written_and_read(self, picture: Image.Image, tmp_path: Path) -> None:
        metadata = {"model": "Würstchen 🌭", "request": {"prompt": ["a red house\n"], "seed": 2**64 - 1, "x": 0.1}}
        save(picture, tmp_path / "a.png", metadata)
        assert read_metadata(tmp_path / "a.png") == metadata
        with Image.open(tmp_path / "a.png") as read:
            assert json.loads(read.info["vinograph"]) == metadata

    def test_without_metadata_there_is_none(self, picture: Image.Image, tmp_path: Path) -> None:
        save(picture, tmp_path / "a.png")
        save(picture, tmp_path / "a.jpg", None, "a house")
        assert read_metadata(tmp_path / "a.png") is None
        assert read_metadata(tmp_path / "a.jpg") is None

    def test_an_existing_picture_is_replaced(self, picture: Image.Image, tmp_path: Path) -> None:
        save(Image.new("RGB", (2, 2)), tmp_path / "a.png")
        save(picture, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as read:
            assert read.size == (WIDTH, HEIGHT)

    def test_a_failed_write_leaves_the_old_picture_and_nothing_else(
        self, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(picture, tmp_path / "a.png")
        before = (tmp_path / "a.png").read_bytes()

        def half(self: Image.Image, file: Path, kind: str, **options: Any) -> None:
            Path(file).write_bytes(before[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", half)
        with pytest.raises(ResourceError, match=r"a.png can't be written: No space left on device; up to .* are free"):
            save(picture, tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["a.png"]

    def test_an_interrupted_write_leaves_nothing(
        self, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: Image.Image, file: Path, kind: str, **options: Any) -> None:
            Path(file).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(picture, tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []


class TestOutput:
    """Whether a picture can be written is checked before it is generated."""

    def test_new_and_existing_files_can_be_written(self, tmp_path: Path) -> None:
        check_output(tmp_path / "new.png")
        (tmp_path / "old.webp").touch()
        check_output(tmp_path / "old.webp")

    @pytest.mark.parametrize("name", ["picture", "picture.gif", "picture.png.tmp", ".png"])
    def test_an_unknown_extension_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(RequestError, match=r"end the name in one of \.png, \.jpg, \.jpeg, \.webp"):
            check_output(tmp_path / name)

    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").mkdir()
        with pytest.raises(RequestError, match=r"a.png is a directory; name a file in it"):
            check_output(tmp_path / "a.png")

    def test_a_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"there is no folder .*nowhere"):
            check_output(tmp_path / "nowhere" / "a.png")

    def test_a_folder_without_write_permission_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
        with pytest.raises(RequestError, match="can't be written: no permission"):
            check_output(tmp_path / "a.png")

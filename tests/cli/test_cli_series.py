"""`vinograph generate` draws several pictures: names, lists of prompts, batches, and what stays when it is cut short."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, command, environment, files_here, running
from vinograph import Pipeline
from vinograph.cli.batches import at_once
from vinograph.images import read_metadata
from vinograph.models.bundle import Bundle


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


class TestNames:
    def test_without_output_nothing_is_replaced(self, vinograph: Run, bundle: Bundle) -> None:
        draw = ("generate", "a house", "-m", bundle.path, "--seed", 7)
        assert [vinograph(*draw).out.split()[0] for _ in range(3)] == ["picture.png", "picture-2.png", "picture-3.png"]
        several = vinograph(*draw, "--count", 2).out.splitlines()
        assert several[:2] == ["picture-4.png  seed 7", "picture-5.png  seed 8"]
        Path("picture-2.png").unlink()
        assert vinograph(*draw).out.startswith("picture-6.png")
        Path("picture.png").unlink()
        assert vinograph(*draw).out.startswith("picture.png")

    def test_what_has_the_name_stays_whatever_it_is(self, vinograph: Run, bundle: Bundle) -> None:
        Path("picture.png").mkdir()
        Path("picture-2.jpg").write_text("mine")
        assert vinograph("generate", "a house", "-m", bundle.path).out.startswith("picture-3.png")

    def test_a_name_that_is_taken_meanwhile_stays(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def late(source: str, target: Path) -> None:
            if target.name == "picture.png" and not target.exists():
                target.write_text("another process's")
            link(source, target)

        monkeypatch.setattr(os, "link", late)
        assert vinograph("generate", "a house", "-m", bundle.path).out.startswith("picture-2.png")
        assert Path("picture.png").read_text() == "another process's"
        assert files_here() == ["picture-2.png", "picture.png"]

    def test_file_systems_without_links(self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
        for _ in range(2):
            assert vinograph("generate", "a house", "-m", bundle.path).code == 0
        assert files_here() == ["picture-2.png", "picture.png"]
        assert pixels("picture-2.png").shape == (128, 128, 3)

    def test_reconstruct_replaces_nothing_either(self, vinograph: Run, bundle: Bundle) -> None:
        Image.new("RGB", (128, 128), "red").save("red.png")
        for _ in range(2):
            assert vinograph("reconstruct", "red.png", "-m", bundle.path).code == 0
        assert files_here() == ["reconstruction-2.png", "reconstruction.png", "red.png"]


LIST = "a red house\n\n  # a comment\n two blue boats \r\na green tree"


class TestLists:
    def test_each_line_of_a_file_is_drawn(self, vinograph: Run, bundle: Bundle) -> None:
        Path("list.txt").write_text(LIST)
        done = vinograph("generate", "@list.txt", "-m", bundle.path, "--seed", 7, "--count", 2, "-o", "a.png")
        assert done.code == 0, done.err
        assert done.out.splitlines()[:-1] == [f"a-{number}.png  seed {number + 6}" for number in range(1, 7)]
        requests = [(read_metadata(Path(f"a-{number}.png")) or {})["request"] for number in range(1, 7)]
        said = ["a red house", "two blue boats", "a green tree"]
        assert [each["prompt"] for each in requests] == [text for text in said for _ in range(2)]
        assert "picture 3-4 of 6: prior 4/4" in done.err

    def test_they_are_what_python_draws_of_the_list(self, vinograph: Run, bundle: Bundle) -> None:
        Path("list.txt").write_text("a red house\ntwo blue boats\n")
        vinograph("generate", "@list.txt", "-m", bundle.path, "--seed", 7, "-o", "a.png", "--precision", "f32")
        pipe = Pipeline(bundle, precision="f32")
        drawn = pipe(["a red house", "two blue boats"], seed=7).images
        for number, picture in enumerate(drawn, 1):
            assert np.abs(pixels(f"a-{number}.png").astype(int) - np.asarray(picture)).max() <= 1

    def test_standard_input(self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffein häuschen\n#\nzwei".encode())))
        done = vinograph("generate", "-", "-m", bundle.path, "--seed", 3, "--json")
        assert done.record["images"] == [
            {"file": "picture-1.png", "seed": 3, "line": 1, "prompt": "ein häuschen"},
            {"file": "picture-2.png", "seed": 4, "line": 3, "prompt": "zwei"},
        ]
        assert done.record["request"]["prompt"] == ["ein häuschen", "zwei"]

    def test_a_warning_names_its_line(self, vinograph: Run, bundle: Bundle) -> None:
        Path("list.txt").write_text(f"a house\na red house {'on a hill ' * 20} at night\n")
        assert "warning: line 2: " in vinograph("generate", "@list.txt", "-m", bundle.path).err

    def test_a_bad_prompt_is_named_before_anything_is_drawn(self, vinograph: Run, bundle: Bundle) -> None:
        Path("list.txt").write_text(f"a house\n#\n{'a' * 20_001}\n")
        done = vinograph("generate", "@list.txt", "-m", bundle.path)
        done.fails(2, "line 3 of list.txt: prompt has 20,001 characters")
        assert files_here() == ["list.txt"]

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("@absent.txt", b"", ("@absent.txt names a list", "no such file", "put a space before it")),
            ("@.", b"", ("can't be read",)),
            ("@list.txt", b"\n# none\n \n", ("list.txt has no prompt",)),
            ("@list.txt", b"", ("list.txt has no prompt",)),
            ("@list.txt", b"caf\xe9", ("list.txt is not text in UTF-8",)),
            ("@list.txt", b"a house\n" * 2_000_001, ("list.txt has over 16 MB",)),
        ],
    )
    def test_what_is_no_list_is_refused(
        self, vinograph: Run, bundle: Bundle, name: str, content: bytes, words: tuple[str, ...]
    ) -> None:
        Path("list.txt").write_bytes(content)
        vinograph("generate", name, "-m", bundle.path).fails(2, *words)

    def test_no_standard_input_is_refused(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", None)
        vinograph("generate", "-", "-m", bundle.path).fails(2, "standard input is closed")


class TestBatches:
    @pytest.mark.parametrize(
        ("free", "pixels", "count"),
        [
            (16e9, 1024 * 1024, 2),
            (4e9, 1024 * 1024, 1),
            (16e9, 512 * 512, 8),
            (1e9, 256 * 256, 2),
            (64e9, 64 * 64, 8),
            (1e6, 1024 * 1024, 1),
            (0, 256 * 256, 8),
            (64e9, None, 1),
        ],
    )
    def test_as_many_as_fit_into_half_of_the_memory(
        self, monkeypatch: pytest.MonkeyPatch, free: float, pixels: float | None, count: int
    ) -> None:
        monkeypatch.setattr("vinograph.resources.memory_available", lambda: int(free))
        assert at_once(pixels) == count

    def test_batches_draw_what_one_call_draws(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        common = ("generate", "a house", "-m", bundle.path, "--precision", "f32", "--seed", 2**64 - 2, "--count", 5)
        whole = vinograph(*common, "-o", "a.png", "--json").record
        monkeypatch.setattr("vinograph.cli.batches.at_once", lambda _: 2)
        parts = vinograph(*common, "-o", "b.png", "--json").record
        seeds = [2**64 - 2, 2**64 - 1, 0, 1, 2]
        assert [each["seed"] for each in parts["images"]] == [each["seed"] for each in whole["images"]] == seeds
        assert parts["request"] == whole["request"]
        for number in range(1, 6):
            assert np.abs(pixels(f"a-{number}.png").astype(int) - pixels(f"b-{number}.png")).max() <= 1

    def test_a_picture_to_start_from_says_the_size(self, vinograph: Run, bundle: Bundle) -> None:
        Image.new("RGB", (256, 128), "red").save("red.png")
        done = vinograph("generate", "a house", "-m", bundle.path, "-i", "red.png", "--count", 4, "-o", "a.png")
        assert done.code == 0, done.err
        assert "prior" in done.err
        assert "of 4: prior" not in done.err  # one call draws all

    def test_what_is_drawn_stays_when_it_is_interrupted(self, bundle: Bundle) -> None:
        arguments = ("generate", "a house", "-m", bundle.path, "--count", 500, "--seed", 1, "-o", "a.png")
        with running(command(*arguments)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "a-1.png  seed 1\n"
            process.send_signal(signal.SIGINT)
            out = process.stdout.read()  # communicate() would miss what is buffered
            assert process.stderr is not None
            err = process.stderr.read()
            process.wait(60)
        assert process.returncode == 130
        there = files_here()
        assert 0 < len(there) < 500
        assert all(pixels(each).shape == (128, 128, 3) for each in there)
        said = re.search(r"^(\d+) of 500 pictures were written, the last to a-\1.png$", err, re.MULTILINE)
        assert said is not None, err
        # The signal may come between a picture's last byte and the line that names it.
        assert len(there) - int(said[1]) in (0, 1)
        assert len(out.splitlines()) + 1 - int(said[1]) in (0, 1)

    def test_bars_of_the_next_call_take_the_place_of_the_last_ones(self, bundle: Bundle) -> None:
        reader, writer = pty.openpty()
        Path("list.txt").write_text("a house\na boat\n")
        arguments = command("generate", "@list.txt", "-m", bundle.path, "--seed", 7)
        env = environment(TERM="xterm-256color", COLUMNS="80")
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=writer, env=env) as process:
            os.close(writer)
            seen = b""
            while chunk := _read(reader):
                seen += chunk
            assert process.stdout is not None
            assert process.stdout.read().startswith(b"picture-1.png  seed 7\npicture-2.png  seed 8\n")
        os.close(reader)
        assert b"picture 2 of 2: prior" in seen
        assert b"\x1b[2K" in seen  # lines are cleared
        assert b"\x1b[1A" in seen  # and the cursor goes back up


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's error when the other side is closed
        return b""

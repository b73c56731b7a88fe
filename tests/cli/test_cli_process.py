"""The command line as a process: signals, pipes, full disks, defects, and time to start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Outcome, Run, command, environment, files_here, in_process
from vinograph.cli import main
from vinograph.models.bundle import Bundle

ENDLESS = ("--size", "2048x2048", "--steps", 1000, "--decoder-steps", 1000)


class TestInterruption:
    @pytest.mark.parametrize("stage", ["prior", "decoder"])
    def test_ctrl_c_stops_within_one_step(self, bundle: Bundle, stage: str) -> None:
        steps = {"prior": ENDLESS, "decoder": ("--size", "2048x2048", "--steps", 1, "--decoder-steps", 1000)}[stage]
        done, seconds = self.stopped(signal.SIGINT, bundle, stage, *steps)
        assert done.code == 130
        assert done.out == ""
        assert done.err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in done.err
        assert seconds < 5
        assert files_here() == []

    def test_ctrl_c_prints_json(self, bundle: Bundle) -> None:
        done, _ = self.stopped(signal.SIGINT, bundle, "prior", *ENDLESS, "--json")
        assert done.record["error"]["exit_code"] == done.code == 130

    def test_sigterm_leaves_no_file(self, bundle: Bundle) -> None:
        done, seconds = self.stopped(signal.SIGTERM, bundle, "prior", *ENDLESS)
        assert done.code == 143
        assert "Traceback" not in done.err
        assert seconds < 5
        assert files_here() == []

    def test_ctrl_c_while_the_picture_is_written_leaves_no_file(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: object, file: Path, kind: str, **options: object) -> None:
            Path(file).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr("PIL.Image.Image.save", interrupted)
        done = vinograph("generate", "a house", "--model", bundle.path)
        assert done.code == 130
        assert files_here() == []

    def stopped(self, number: int, bundle: Bundle, stage: str, *options: object) -> tuple[Outcome, float]:
        """The outcome of ``generate`` with a signal in ``stage``, and the seconds until its end."""
        arguments = command("generate", "a house", "--model", bundle.path, *options)
        with subprocess.Popen(
            arguments, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            first = ""
            while not first.startswith(f"{stage} ") and process.poll() is None:
                first = process.stderr.readline() if stage == "prior" else self.decoder_begins(process)
            start = time.monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            return Outcome(process.returncode, out, err), time.monotonic() - start

    def decoder_begins(self, process: subprocess.Popen[str]) -> str:
        """Wait for the prior's end; the decoder prints its first line only after many steps."""
        assert process.stderr is not None
        while process.stderr.readline() not in ("prior 1/1\n", ""):
            pass
        time.sleep(0.3)
        return "decoder "


class TestPipes:
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_closed_pipe_ends_a_command_quietly(self, bundle: Bundle, unbuffered: str) -> None:
        arguments = command("inspect", bundle.path)
        env = environment(PYTHONUNBUFFERED=unbuffered)
        with subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == 141

    @pytest.mark.parametrize(("closed", "out"), [("2>&-", True), (">&-", False), (">&- 2>&-", False)])
    def test_closed_streams_are_no_error(self, bundle: Bundle, closed: str, out: bool) -> None:
        arguments = ["sh", "-c", f'exec "$@" {closed}', "sh", *command("verify", bundle.path)]
        done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert ("is whole" in done.stdout) is out
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_printing_to_a_full_disk_exits_with_5(self, bundle: Bundle, options: tuple[str, ...]) -> None:
        with Path("/dev/full").open("w") as full:
            arguments = command("inspect", bundle.path, *options)
            done = subprocess.run(arguments, env=environment(), stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 5
        assert set(done.stderr.splitlines()) == {b"error: standard output can't be written: No space left on device"}

    def test_an_ascii_terminal_gets_ascii(self, bundle: Bundle) -> None:
        done = in_process("verify", "häuschen", PYTHONIOENCODING="ascii")
        done.fails(3, r"there is no model 'h\xe4uschen'")
        done = in_process("generate", "häuschen", "--model", bundle.path, "--json", PYTHONIOENCODING="ascii")
        assert done.record["request"]["prompt"] == ["häuschen"]


class TestDiskAndMemory:
    def test_a_picture_that_does_not_fit_on_the_disk(self, bundle: Bundle) -> None:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
        done = in_process("generate", "a house", "--model", bundle.path, "--size", "256x256", first=limit)
        done.fails(5, "output picture.png can't be written", "bytes are needed", "are free")
        assert files_here() == []

    def test_too_little_memory_exits_with_5(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def starved(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr("vinograph.noise.TorchNoise.normal", starved)
        done = vinograph("generate", "a house", "--model", bundle.path)
        done.fails(5, "not enough memory", "GB are free")


class TestErrors:
    def test_a_defect_of_ours_shows_the_traceback(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def defective(*_: object) -> None:
            raise LookupError("we forgot this")

        monkeypatch.setattr("vinograph.models.catalog.find", defective)
        done = vinograph("verify", bundle.path)
        assert done.code == 1
        assert done.out == ""
        assert done.err.startswith("error: LookupError: we forgot this\n")
        assert "Traceback (most recent call last)" in done.err
        assert "in defective" in done.err
        assert "Please report it" in done.err
        assert "vinograph doctor" in done.err

    def test_json_has_the_error(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, "--steps", 0, "--json")
        message = "--steps is 0; give a whole number from 1 to 1000"
        assert done.record == {"error": {"type": "RequestError", "message": message, "exit_code": 2}}
        assert done.code == 2
        assert done.err == f"error: {message}\n"

    def test_json_has_the_error_of_an_unknown_option(self, vinograph: Run) -> None:
        done = vinograph("generate", "a house", "--stepz", 3, "--json")
        assert done.code == done.record["error"]["exit_code"] == 2
        assert "--stepz" in done.record["error"]["message"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["paint"], ["paint"]),
            (["generate", "a", "b"], ["b", "vinograph generate --help"]),
            (["verify"], ["MODEL", "vinograph verify --help"]),
            (["models", "--all"], ["--all"]),
            (["generate", "a", "--steps"], ["--steps"]),
            (["convert", "a", "b", "--weights"], ["--weights"]),
            (["--sideways"], ["--sideways"]),
        ],
    )
    def test_an_unknown_command_is_refused(self, vinograph: Run, arguments: list[str], words: list[str]) -> None:
        done = vinograph(*arguments)
        done.fails(2, *words)
        assert done.err.count("\n") == 1

    def test_an_unreadable_file_is_named(self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Path.open

        def forbidden(path: Path, *rest: Any, **more: Any) -> Any:
            if path.name == "bundle.json":
                raise PermissionError(13, "Permission denied", path.name)
            return opened(path, *rest, **more)

        monkeypatch.setattr(Path, "open", forbidden)
        vinograph("verify", bundle.path).fails(2, "bundle.json: Permission denied")


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], ["--help"]])
    def test_help_lists_all_commands(self, vinograph: Run, arguments: list[str]) -> None:
        done = vinograph(*arguments)
        assert (done.code, done.err) == (0, "")
        for name in ("generate", "reconstruct", "convert", "inspect", "verify", "models", "devices", "doctor", "web"):
            assert f"\n  {name} " in done.out

    def test_help_of_a_command_in_its_own_process(self) -> None:
        done = in_process("generate", "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("Usage: vinograph generate")

    def test_help_lists_the_options_of_generate(self, vinograph: Run) -> None:
        names = {word for word in vinograph("generate", "--help").out.split() if word.startswith("--")}
        expected = """--model --output --size --steps --guidance-scale --negative-prompt --seed --count --image --strength
            --device --precision --no-metadata --json --help --decoder-steps --decoder-guidance-scale"""
        assert names >= set(expected.split())


class TestStart:
    def test_help_and_inspect_import_no_runtime(self, bundle: Bundle) -> None:
        blocked = (
            "import sys; sys.modules.update(dict.fromkeys(('openvino', 'torch', 'huggingface_hub', 'transformers')))"
        )
        for arguments in (["--help"], ["generate", "--help"], ["models"], ["verify", bundle.path]):
            assert in_process(*arguments, first=blocked).code == 0

    def test_generate_starts_quickly(self, bundle: Bundle) -> None:
        """2.5 s is for the embedded model on an idle machine; processor time ignores other work."""
        code = f"""
import time
from vinograph.cli import main
assert main(["generate", "a house", "--model", {str(bundle.path)!r}]) == 0
print(time.process_time(), file=__import__("sys").stderr)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        assert float(done.stderr.splitlines()[-1]) < 5

    def test_main_takes_the_arguments_of_the_process(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["vinograph", "models", "--json"])
        assert main() == 0
        assert "models_folder" in json.loads(capsys.readouterr().out)

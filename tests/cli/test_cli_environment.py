"""The command line without memory, disk space or a home, and interrupted while it starts."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from tests.cli.conftest import Outcome, Run, command, environment, files_here, in_process
from tests.processors import all_processors
from vinograph import resources
from vinograph.models.bundle import Bundle

NOBODY = "~nobody-of-that-name"


def limited(megabytes: int) -> str:
    """Code that limits a process's address space, as `ulimit -v` does."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({megabytes << 20},) * 2)"


class TestMemory:
    @pytest.fixture(autouse=True)
    def _any_processor(self) -> Iterator[None]:
        """The amounts of memory were chosen for all processors; with fewer it ends at other places."""
        with all_processors():
            yield

    @pytest.mark.parametrize("megabytes", [40, 100, 160, 190, 220, 260, 300, 400])
    def test_too_little_memory_ends_generate_with_a_message(self, bundle: Bundle, megabytes: int) -> None:
        done = in_process("generate", "a house", "--model", bundle.path, first=limited(megabytes), OMP_NUM_THREADS="1")
        done.fails(5, "there is not enough", "memory", "GB are free", "ulimit -v")
        assert files_here() == []

    def test_too_little_memory_while_compiling_gives_a_message(self) -> None:
        done = in_process("generate", "a house", first=limited(600), OMP_NUM_THREADS="1")
        done.fails(5, "there is not enough", "memory", "to compile", "GB are free", "weights alone have")
        assert files_here() == []

    def test_too_little_memory_is_reported_as_json(self, bundle: Bundle) -> None:
        done = in_process("verify", bundle.path, "--json", first=limited(60))
        assert done.record["error"]["exit_code"] == done.code == 5
        assert done.record["error"]["type"] == "ResourceError"

    def test_a_limit_of_the_process_counts_as_available_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plenty = 1 << 50
        monkeypatch.setattr("resource.getrlimit", lambda _: (plenty, plenty))
        before = resources.memory_installed()
        assert resources.memory_limit() == plenty
        monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 20, 1 << 20))
        assert resources.memory_installed() == resources.memory_limit() == 1 << 20 < before
        assert resources.memory_available() == 0
        monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
        assert resources.memory_limit() is None

    @pytest.mark.parametrize(
        "text",
        [
            "can't alloc",
            "Resource temporarily unavailable",
            "std::bad_alloc",
            "err=Cannot allocate memory",
            "Please check the model. Available frontends: jax paddle pytorch tflite tf",
        ],
    )
    @pytest.mark.parametrize("place", ["compile_model", "read_model"])
    def test_every_wording_of_openvino_is_recognised(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str, place: str
    ) -> None:
        def starved(*_: object) -> NoReturn:
            raise RuntimeError(f"Exception from src/inference/src/cpp/core.cpp:117:\n{text}\n")

        monkeypatch.setattr(f"openvino.Core.{place}", starved)
        done = vinograph("generate", "a house", "--model", bundle.path)
        done.fails(5, "there is not enough", "memory", "to compile", "GB are free")

    def test_a_limit_of_threads_is_no_error(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Models that are usually compiled in the background are then compiled when needed."""

        def refused(_: object) -> NoReturn:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("threading.Thread.start", refused)
        assert vinograph("generate", "a house", "--model", bundle.path).code == 0


@pytest.fixture
def full() -> Iterator[Callable[[str], None]]:
    """Redirect a stream of this process, by name, to a full disk."""
    before = sys.stdout, sys.stderr
    opened = []

    def fill(name: str) -> None:
        stream = Path("/dev/full").open("w")  # noqa: SIM115  # closed below
        opened.append(stream)
        setattr(sys, name, stream)

    yield fill
    sys.stdout, sys.stderr = before
    for stream in opened:
        stream.close()


class TestFullDisk:
    COMMANDS: Sequence[Sequence[str]] = [
        ["--help"],
        ["generate", "a house", "--model", "{bundle}", "--output", "new.png"],
        ["reconstruct", "old.png", "--model", "{bundle}", "--output", "new.png"],
        ["inspect", "{bundle}"],
        ["verify", "{bundle}"],
        ["models"],
        ["devices"],
        ["cache"],
        ["doctor"],
        ["benchmark", "{bundle}", "--runs", "0", "--rounds", "1", "--no-reference", "--adherence", "0"],
    ]

    @pytest.mark.parametrize("arguments", COMMANDS, ids=lambda each: each[0])
    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_a_full_disk_under_a_stream(
        self, vinograph: Run, bundle: Bundle, full: Callable[[str], None], arguments: Sequence[str], stream: str
    ) -> None:
        """Under standard output it is an error; under standard error it is ignored."""
        Image.new("RGB", (256, 256), "red").save("old.png")
        full(stream)
        done = vinograph(*(each.format(bundle=bundle.path) for each in arguments))
        assert "Traceback" not in done.err
        assert done.code == (5 if stream == "stdout" else 0)
        assert Path("new.png").exists() == (arguments[-1] == "new.png")

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_a_full_disk_under_a_processs_standard_error(self, bundle: Bundle, options: tuple[str, ...]) -> None:
        arguments = command("generate", "a house", "--model", bundle.path, *options)
        with Path("/dev/full").open("w") as stream:
            done = subprocess.run(arguments, env=environment(), stdout=subprocess.PIPE, stderr=stream, check=False)
        assert done.returncode == 0
        assert b"picture.png" in done.stdout
        assert files_here() == ["picture.png"]

    def test_errors_on_a_full_disk_have_their_exit_codes(self, vinograph: Run, full: Callable[[str], None]) -> None:
        full("stderr")
        assert vinograph("verify", "nothing").code == 3

    def test_a_full_disk_below_a_model_error_is_reported(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may be wrapped by other errors, however deep."""

        def wrapped(*_: object) -> NoReturn:
            try:
                raise OSError(errno.ENOSPC, "No space left on device", "cache/blobs/x")
            except OSError as error:
                from vinograph.errors import ModelError

                raise ModelError("the hub stopped answering") from error

        monkeypatch.setattr("vinograph.models.catalog.find", wrapped)
        vinograph("verify", "org/model").fails(5, "no disk space left", "cache/blobs/x", "GB are free there")


IMPORTED = [
    *("vinograph.cli.run", "typer", "vinograph.cli.application", "vinograph.errors", "numpy", "numpy.linalg"),
    *("PIL.Image", "vinograph.request", "openvino", "openvino._pyopenvino", "vinograph.pipeline", "tokenizers"),
]
_SIGNAL_AT = """
import os, signal, sys

class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT) or signal.default_int_handler)
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Signal())
"""


class TestInterruptedStart:
    @pytest.fixture(autouse=True)
    def _ctrl_c_is_heard(self) -> Iterator[None]:
        """The tests may have been started with Ctrl-C ignored, as a shell's & does."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("name", IMPORTED)
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_while_importing_ends_the_command(self, bundle: Bundle, name: str, number: int) -> None:
        done = self.interrupted(name, number, "generate", "a house", "--model", bundle.path)
        assert (done.code, done.out, done.err) == (128 + number, "", "interrupted\n")
        assert files_here() == []

    @pytest.mark.parametrize("name", ["typer", "openvino"])
    def test_a_signal_while_importing_is_reported_as_json(self, bundle: Bundle, name: str) -> None:
        done = self.interrupted(name, signal.SIGINT, "generate", "a house", "--model", bundle.path, "--json")
        assert done.record["error"]["exit_code"] == done.code == 130

    def test_an_interruption_that_became_another_error_is_recognised(
        self, vinograph: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compiled modules turn it into an ImportError, for example."""

        def initialized(*_: object) -> NoReturn:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:
                raise ImportError("initialization failed") from error
            raise AssertionError("the signal was not delivered")

        monkeypatch.setattr("vinograph.models.catalog.find", initialized)
        done = vinograph("verify", "a")
        assert (done.code, done.out, done.err) == (143, "", "interrupted\n")

    def test_a_signal_in_a_finalizer_ends_the_command(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        class Finalized:
            def __del__(self) -> None:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100):  # the signal is handled in here
                    pass

        def endless(*_: object) -> NoReturn:
            Finalized()
            for __ in range(10**8):
                pass
            raise AssertionError("the signal was lost")

        monkeypatch.setattr("vinograph.models.catalog.find", endless)
        done = vinograph("verify", "a")
        assert (done.code, done.out, done.err) == (130, "", "interrupted\n")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_in_code_that_ignores_exceptions_ends_the_command(
        self, vinograph: Run, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """Compiled code of some packages does."""

        def deaf(*_: object) -> NoReturn:
            with contextlib.suppress(BaseException):
                os.kill(os.getpid(), number)
            for __ in range(10**8):
                pass
            raise AssertionError("the signal was lost")

        monkeypatch.setattr("vinograph.models.catalog.find", deaf)
        done = vinograph("verify", "a")
        assert (done.code, done.out, done.err) == (128 + number, "", "interrupted\n")

    def test_a_second_ctrl_c_does_not_interrupt_cleaning_up(
        self, vinograph: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cleaned = []

        def steps() -> Iterator[None]:
            try:
                yield
            finally:
                time.sleep(0.7)  # a step that was under way
                cleaned.append("the generator")

        def slow(*_: object) -> NoReturn:
            try:
                with contextlib.closing(steps()) as each:  # type: ignore[type-var]
                    next(each)
                    os.kill(os.getpid(), signal.SIGINT)
            finally:
                time.sleep(0.5)
                cleaned.append("the rest")
            raise AssertionError("the signal was lost")

        monkeypatch.setattr("vinograph.models.catalog.find", slow)
        done = vinograph("verify", "a")
        assert (done.code, done.err) == (130, "interrupted\n")
        assert cleaned == ["the generator", "the rest"]

    def test_signal_handlers_and_hooks_are_restored(self, vinograph: Run) -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook
        assert vinograph("models").code == 0
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before

    def test_an_ignored_signal_stays_ignored(self, bundle: Bundle) -> None:
        ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        done = self.interrupted("numpy", signal.SIGTERM, "verify", bundle.path, first=ignore)
        assert done.code == 0

    def interrupted(self, name: str, number: int, *arguments: object, first: str = "") -> Outcome:
        """The outcome of a command that gets a signal when it starts to import a module."""
        return in_process(*arguments, first=first + _SIGNAL_AT.format(name=name, number=int(number)))


# Nobody has the user's number, and HOME isn't set.
HOMELESS = """
import os, pwd

def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = unknown
for name in ("HOME", "VINOGRAPH_MODELS", "VINOGRAPH_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
    os.environ.pop(name, None)
"""


class TestNoHome:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["generate", "a house", "--model", "{bundle}"],
            ["verify", "{bundle}"],
            ["models"],
            ["cache"],
            ["cache", "--clear"],
            ["doctor"],
            ["devices"],
        ],
        ids=" ".join,
    )
    def test_commands_work_without_a_home(self, bundle: Bundle, arguments: Sequence[str]) -> None:
        done = in_process(*(each.format(bundle=bundle.path) for each in arguments), first=HOMELESS)
        assert done.code == 0, done.err
        assert done.err.count("warning: ") == (1 if arguments[0] == "generate" else 0), "that nothing can be kept"
        assert files_here() == (["picture.png"] if arguments[0] == "generate" else [])

    def test_an_unknown_model_without_a_home(self) -> None:
        in_process("generate", "a house", "--model", "nothing", first=HOMELESS).fails(3, "there is no model 'nothing'")

    def test_a_hub_model_without_a_home(self) -> None:
        in_process("generate", "a house", "--model", "org/nothing", first=HOMELESS).fails(
            2, "set HF_HOME", "org/nothing"
        )
        assert files_here() == []

    def test_an_unreadable_home_is_no_error(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """`docker run --user 12345` with root's HOME is such a case."""
        monkeypatch.setenv("VINOGRAPH_MODELS", "/root-of-another/models")
        monkeypatch.setenv("VINOGRAPH_CACHE", "/root-of-another/cache")
        plain = os.stat

        def forbidden(path: object, *rest: object, **more: object) -> os.stat_result:
            if str(path).startswith("/root-of-another/"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return plain(path, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr("os.stat", forbidden)
        for arguments in (["models"], ["cache"], ["generate", "a house", "--model", "storybook-sdxl"], ["doctor"]):
            done = vinograph(*arguments)
            assert done.code == 0, done.err


class TestPathsOfUnknownUsers:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["generate", "a house", "--model", NOBODY],
            ["generate", "a house", "--model", f"{NOBODY}/x"],
            ["generate", "a house", "--model", "{bundle}", "--output", f"{NOBODY}/x.png"],
            ["generate", "a house", "--model", "{bundle}", "--image", f"{NOBODY}/x.png"],
            ["generate", "a house", "--model", "{bundle}", "--device", NOBODY],
            ["generate", "a house", "--model", "storybook-sdxl", "--image", f"{NOBODY}/x.png", "--steps", "4"],
            ["reconstruct", f"{NOBODY}/x.png", "--model", "{bundle}"],
            ["convert", f"{NOBODY}/x", "bundle"],
            ["convert", NOBODY, "bundle"],
            ["quantize", f"{NOBODY}/x", "out", "--mode", "weights"],
            ["quantize", "{bundle}", "out", "--mode", "mixed", "--prompts", f"{NOBODY}/x"],
            ["benchmark", f"{NOBODY}/x"],
            ["benchmark", "{bundle}", "--against", "diffusers", "--checkpoint", f"{NOBODY}/x"],
            ["benchmark", "{bundle}", "--output", f"{NOBODY}/x.json"],
            ["benchmark", "{bundle}", "--chart", f"{NOBODY}/x.svg"],
            ["benchmark", "{bundle}", "--reference", f"{NOBODY}/x", "--runs", "0", "--rounds", "1"],
            ["inspect", f"{NOBODY}/x"],
            ["verify", f"{NOBODY}/x"],
        ],
        ids=" ".join,
    )
    def test_paths_of_an_unknown_user_are_refused(
        self, vinograph: Run, bundle: Bundle, arguments: Sequence[str]
    ) -> None:
        done = vinograph(*(each.format(bundle=bundle.path) for each in arguments))
        assert done.code in (2, 3), done.err
        assert "Traceback" not in done.err
        assert "nobody-of-that-name" in done.err
        assert files_here() == []


class TestOutputs:
    @pytest.mark.parametrize("length", [224, 225, 240, 255])
    def test_a_picture_with_a_long_name_is_written(self, vinograph: Run, bundle: Bundle, length: int) -> None:
        name = "x" * (length - 4) + ".png"
        assert vinograph("generate", "a house", "--model", bundle.path, "--output", name).code == 0
        assert files_here() == [name]

    def test_a_picture_with_too_long_a_name_is_refused(self, vinograph: Run, bundle: Bundle) -> None:
        name = "x" * 252 + ".png"
        vinograph("generate", "a house", "--model", bundle.path, "--output", name).fails(2, "too long")

    def test_a_replaced_picture_keeps_its_permissions(self, vinograph: Run, bundle: Bundle) -> None:
        file = Path("secret.png")
        file.touch(0o600)
        assert vinograph("generate", "a house", "--model", bundle.path, "--output", file).code == 0
        assert file.stat().st_mode & 0o777 == 0o600
        with Image.open(file) as picture:
            assert picture.format == "PNG"

    def test_a_links_target_is_replaced(self, vinograph: Run, bundle: Bundle) -> None:
        Path("pictures").mkdir()
        Path("link.png").symlink_to("pictures/house.png")
        assert vinograph("generate", "a house", "--model", bundle.path, "--output", "link.png").code == 0
        assert Path("link.png").is_symlink()
        assert Path("pictures/house.png").is_file()

    @pytest.mark.parametrize(
        ("target", "word"),
        [("/dev/null", "device"), ("/dev/full", "device"), ("missing/x.png", "No such file"), ("/proc/x.png", "")],
    )
    def test_a_link_to_a_device_is_refused(self, vinograph: Run, bundle: Bundle, target: str, word: str) -> None:
        Path("link.png").symlink_to(target)
        vinograph("generate", "a house", "--model", bundle.path, "--output", "link.png").fails(2, "link.png", word)
        assert files_here() == ["link.png"]

    def test_a_pipe_is_refused(self, vinograph: Run, bundle: Bundle) -> None:
        os.mkfifo("pipe.png")
        vinograph("generate", "a house", "--model", bundle.path, "--output", "pipe.png").fails(2, "is a pipe")
        assert Path("pipe.png").is_fifo()

    @pytest.mark.parametrize("option", ["--output", "--chart"])
    def test_outputs_of_a_benchmark_are_checked(self, vinograph: Run, bundle: Bundle, option: str) -> None:
        ending = {"--output": "json", "--chart": "svg"}[option]
        Path(f"link.{ending}").symlink_to("/dev/full")
        vinograph("benchmark", bundle.path, option, f"link.{ending}").fails(2, "is a device")
        vinograph("benchmark", bundle.path, option, f"/proc/x.{ending}").fails(
            2, f"/proc/x.{ending}", "can't be written"
        )


_WARNS = """
import sys, warnings

class Warns:
    def find_spec(self, name, path=None, target=None):
        if name == "vinograph.cli.application":
            for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning):
                warnings.warn_explicit(f"a {kind.__name__} of a library", kind, "library.py", 1, module="__main__")

sys.meta_path.insert(0, Warns())
"""


class TestWarningsOfLibraries:
    def warnings_of(self, **more: str) -> str:
        """The warnings that a command prints on standard error."""
        arguments = [each for each in command("models", first=_WARNS) if each not in ("-W", "error")]
        env = {name: value for name, value in environment(**more).items() if name != "PYTHONWARNINGS" or more}
        done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=True)
        return done.stderr

    def test_developers_warnings_are_hidden(self) -> None:
        printed = self.warnings_of()
        assert "a UserWarning of a library" in printed
        assert "DeprecationWarning" not in printed
        assert "FutureWarning" not in printed

    def test_developers_warnings_are_shown_on_request(self) -> None:
        printed = self.warnings_of(PYTHONWARNINGS="default")
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning"):
            assert f"a {kind} of a library" in printed

"""The process that draws: it ends with the server, is replaced where it ends by itself, and holds few models."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.drawing_service import (
    MODEL,
    PATIENCE,
    SMALL,
    configuration,
    drawing,
    first_step,
    followed,
    long_drawing,
    patiently,
    pixels,
    places,
    running,
    served,
    soon,
)
from vinograph import DamagedModelError, NumericalError, Pipeline, RequestError, ResourceError
from vinograph.models import catalog
from vinograph.serve import messages, model_health, worker_process
from vinograph.serve.contract import (
    AdapterInfo,
    DrainingError,
    Drawn,
    Encoding,
    ModelUnavailableError,
    Progress,
    QueueFullError,
    WorkerLostError,
)
from vinograph.serve.job_queue import JobQueue
from vinograph.serve.messages import SentError, WorkerDefectError
from vinograph.serve.model_health import ModelHealth
from vinograph.serve.service import NoMetrics
from vinograph.serve.worker import _explained

ADAPTER = Path(__file__).parents[2] / "training" / "adapters" / "turquoise-sdxl.safetensors"


def alive(pid: int) -> bool:
    """Whether a process exists that hasn't ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model that opens, and whose weights are gone once it is used."""
    bundle = next(path for path in catalog.embedded() if path.name == MODEL)
    return Path(shutil.copytree(bundle, tmp_path / "broken"))


class TestLoss:
    def test_a_killed_process_costs_one_request_and_is_replaced(self, capfd: pytest.CaptureFixture[str]) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                lost = await service.submit(long_drawing())
                following = asyncio.create_task(followed(lost))
                waiting = await service.submit(drawing())
                await first_step(lost)
                (before,) = service.process_ids
                os.kill(before, signal.SIGKILL)
                with pytest.raises(WorkerLostError, match=r"\(killed by SIGKILL\); another has taken its place"):
                    await following
                drawn = await waiting.result()
                (after,) = service.process_ids
                assert after != before
                assert len(drawn.pictures) == 1
                assert not alive(before)
                assert service.running is None

        asyncio.run(patiently(scenario()))

    def test_a_model_that_ends_the_process_again_and_again_is_left_alone(self) -> None:
        async def scenario() -> None:
            async with running(configuration(served(), served("other"), loaded_models=1)) as service:
                for _ in range(3):
                    job = await service.submit(long_drawing(model="other"))
                    await soon(lambda: service.running is not None)
                    os.kill(service.process_ids[0], signal.SIGKILL)
                    with pytest.raises(WorkerLostError):
                        await job.result()
                with pytest.raises(ModelUnavailableError, match="the model other can't be used now: the process that"):
                    await service.submit(drawing(model="other"))
                assert "SIGKILL" in (await service.find("other")).problem
                assert len((await (await service.submit(drawing())).result()).pictures) == 1

        asyncio.run(patiently(scenario()))

    def test_a_process_that_never_starts_is_tried_less_and_less_often(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PYTHONHOME", "/nonexistent")
        monkeypatch.setattr(worker_process, "_FIRST_PAUSE", 0.01)
        monkeypatch.setattr(model_health, "_FIRST_PAUSE", 0.2)

        async def scenario() -> None:
            async with running(configuration()) as service:
                job = await service.submit(drawing())
                with pytest.raises(ModelUnavailableError, match=r"ended \(exit code 1\)"):
                    await job.result()
                with pytest.raises(ModelUnavailableError):
                    await service.submit(drawing())
                assert not service.ready
                monkeypatch.delenv("PYTHONHOME")
                await soon(lambda: service.ready)
                assert len((await (await service.submit(drawing())).result()).pictures) == 1

        asyncio.run(patiently(scenario()))

    def test_a_model_that_ends_the_process_while_it_is_loaded_ahead_is_no_longer_loaded_so(self) -> None:
        class Process:
            settings = messages.Settings((), "small", 2, None)

        queue = JobQueue(Process(), NoMetrics())  # type: ignore[arg-type]
        for _ in range(3):
            assert queue.process.settings.preload == "small"
            queue.received(messages.Started())
            queue.lost("killed by SIGKILL", started=True)
        assert queue.process.settings.preload is None
        assert queue.problem("small") == "the process that draws with it ended (killed by SIGKILL)"
        assert not queue.problem("other")

    def test_pauses_grow_and_end_with_success(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        health, pauses = ModelHealth(), []
        for _ in range(12):
            health.lost("a", "killed")
            began = now
            while health.blocked("a"):
                now += 5
            pauses.append(now - began)
        assert pauses == [0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
        assert health.reason("a") == "killed"
        health.worked("a")
        assert (health.reason("a"), health.blocked("a")) == ("", False)

    def test_the_process_ends_when_the_server_is_killed(self) -> None:
        code = """
            import asyncio, os, signal
            from tests.serve.drawing_service import configuration
            from vinograph.serve.service import DrawingService

            async def main():
                service = DrawingService(configuration())
                await service.start()
                print(*service.process_ids, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(main())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == -signal.SIGKILL
        pid = int(done.stdout)
        deadline = time.monotonic() + PATIENCE
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(pid)


class TestEnd:
    def test_the_running_job_may_end_and_waiting_ones_are_told(self) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                jobs = [await service.submit(drawing(num_inference_steps=100)) for _ in range(3)]
                await first_step(jobs[0])
                closing = asyncio.create_task(service.close(60))
                await asyncio.sleep(0)
                with pytest.raises(DrainingError, match="takes no new work"):
                    await service.submit(drawing())
                assert not service.ready
                for job in jobs[1:]:
                    with pytest.raises(DrainingError):
                        await job.result()
                assert len((await jobs[0].result()).pictures) == 1
                await closing
                assert not [pid for pid in service.process_ids if alive(pid)]

        asyncio.run(patiently(scenario()))

    @pytest.mark.parametrize("grace", [0.0, 0.3])
    def test_after_the_grace_the_running_job_is_stopped(self, grace: float) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                job = await service.submit(long_drawing())
                await first_step(job)
                await service.close(grace)
                assert isinstance(job.latest, Progress)
                assert job.latest.index < job.latest.total
                with pytest.raises(DrainingError):
                    await job.result()

        asyncio.run(patiently(scenario()))

    def test_a_second_call_shortens_the_first(self) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                job = await service.submit(long_drawing())
                await first_step(job)
                first = asyncio.create_task(service.close(100))
                await asyncio.sleep(0.05)
                assert not job.ended
                await service.close(0)
                await first
                with pytest.raises(DrainingError):
                    await job.result()

        asyncio.run(patiently(scenario()))

    def test_signals_that_end_the_server_leave_the_process_to_it(self) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                job = await service.submit(drawing(num_inference_steps=50))
                await first_step(job)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    os.kill(service.process_ids[0], number)
                assert len((await job.result()).pictures) == 1
                assert os.getpriority(os.PRIO_PROCESS, service.process_ids[0]) == os.getpriority(os.PRIO_PROCESS, 0) + 5

        asyncio.run(patiently(scenario()))

    def test_nothing_is_left_open(self) -> None:
        async def scenario() -> None:
            async with running(configuration()) as service:
                (killed,) = service.process_ids
                os.kill(killed, signal.SIGKILL)
                await soon(lambda: killed not in service.process_ids)
                await (await service.submit(drawing())).result()

        before = open_files("self")
        asyncio.run(patiently(scenario()))
        assert open_files("self") == before


class TestModels:
    @pytest.mark.parametrize("limits", [{"loaded_models": 1}, {"loaded_models": 2, "memory": 1_000_000}])
    def test_models_that_were_not_used_for_longest_make_room(self, limits: dict[str, int]) -> None:
        async def scenario() -> None:
            async with running(configuration(served("a"), served("b"), **limits)) as service:
                for name in ("b", "a", "b"):
                    await (await service.submit(drawing(model=name))).result()
                    assert {each.name: each.loaded for each in await service.models()} == {
                        "a": name == "a",
                        "b": name == "b",
                    }

        asyncio.run(patiently(scenario()))

    def test_adapters_are_named_by_clients_and_by_the_configuration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
        (tmp_path / "adapters").mkdir()
        named = Path(shutil.copy(ADAPTER, tmp_path / "adapters" / "turquoise.safetensors"))

        async def scenario() -> list[Drawn]:
            settings = configuration(served(), served("always", adapters={str(ADAPTER): 0.5}))
            async with running(settings) as service:
                takes = (await service.find("")).takes
                assert await service.adapters() == [AdapterInfo("turquoise", named)]
                with pytest.raises(RequestError, match=r"there is no adapter 'other' in .*; there is turquoise"):
                    await service.submit(drawing(adapters={"other": 1.0}))
                metadata = Encoding(metadata=True)
                asked = [
                    drawing(adapters={"turquoise": 0.5}, encoding=metadata),
                    drawing(),
                    drawing(model="always"),
                ]
                drawn = [await (await service.submit(each)).result() for each in asked]
                assert (await service.find("")).takes == takes
                return drawn

        by_client, without, by_default = asyncio.run(patiently(scenario()))
        assert by_client.pictures[0].infotext.startswith("a red house <lora:turquoise:0.5>\n")
        assert str(tmp_path).encode() not in by_client.pictures[0].data
        assert json.loads(Image.open(io.BytesIO(by_client.pictures[0].data)).info["vinograph"])["adapters"] == {
            "turquoise.safetensors": 0.5
        }
        pipe = Pipeline.from_pretrained(MODEL, precision="f32")
        for drawn, adapters in ((by_client, {ADAPTER: 0.5}), (without, {}), (by_default, {ADAPTER: 0.5})):
            pipe.set_adapters(adapters)
            alone = pipe("a red house", seed=7, **SMALL).images[0]
            np.testing.assert_array_equal(pixels(drawn)[0], np.asarray(alone))

    def test_a_model_that_is_not_there_leaves_the_others_alone(self) -> None:
        async def scenario() -> None:
            async with running(configuration(served(), served("gone", "/nowhere/model"))) as service:
                with pytest.raises(ModelUnavailableError, match="the model gone can't be used now: there is no model"):
                    await service.submit(drawing(model="gone"))
                info = await service.find("gone")
                assert (info.loaded, info.family, info.takes, info.sizes) == (False, "", {}, None)
                assert info.problem.startswith("there is no model")
                assert len((await (await service.submit(drawing())).result()).pictures) == 1

        asyncio.run(patiently(scenario()))

    def test_a_model_whose_weights_are_gone_is_unavailable_until_they_return(self, broken: Path) -> None:
        async def scenario() -> None:
            settings = configuration(served(), served("broken", str(broken)))
            async with running(settings) as service:
                await service.find("broken")
                (broken / "unet.bin").rename(broken / "away")
                job = await service.submit(drawing(model="broken"))
                with pytest.raises(ModelUnavailableError, match=r"the model broken can't be used now: .*unet\.bin"):
                    await job.result()
                assert "unet.bin" in (await service.find("broken")).problem
                (broken / "away").rename(broken / "unet.bin")
                await (await service.submit(drawing(model="broken"))).result()
                assert not (await service.find("broken")).problem

        asyncio.run(patiently(scenario()))

    def test_a_default_model_that_cannot_be_loaded_keeps_the_server_from_being_ready(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            settings = configuration(served("gone", str(tmp_path / "gone")), served())
            async with running(settings) as service:
                assert len((await (await service.submit(drawing(model="small"))).result()).pictures) == 1
                assert not service.ready

        asyncio.run(patiently(scenario()))

    def test_models_on_different_devices_draw_at_the_same_time(self) -> None:
        async def scenario() -> None:
            settings = configuration(served("a"), served("b", device="AUTO:CPU"), queue=1)
            async with running(settings) as service:
                assert len(service.process_ids) == 2
                jobs = [await service.submit(long_drawing(model=name)) for name in ("a", "b")]
                for job in jobs:
                    await first_step(job)
                assert service.running is jobs[0]
                waiting = await service.submit(drawing(model="b"))
                with pytest.raises(QueueFullError):
                    await service.submit(drawing(model="a"))
                jobs[1].cancel()
                assert places(await followed(waiting)) == [1, 0]
                jobs[0].cancel()

        asyncio.run(patiently(scenario()))


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            RequestError("height is 63"),
            NumericalError("unet", "f16", "use f32"),
            QueueFullError("full", 7),
            DamagedModelError("unet.bin is short"),
        ],
    )
    def test_errors_arrive_as_they_were(self, error: Exception) -> None:
        packed = messages.pack(messages.Failed("a", SentError.of(error)))
        arrived = messages.unpack(packed[messages.SIZE.size :]).error.rebuilt()
        assert type(arrived) is type(error)
        assert str(arrived) == str(error)
        assert vars(arrived) == vars(error)

    def test_a_shortage_of_memory_is_explained(self) -> None:
        explained = _explained(MemoryError("2 GB"))
        assert isinstance(explained, ResourceError)
        assert str(explained).startswith("there is not enough memory (2 GB)")

    def test_a_defect_goes_to_the_log(self, capsys: pytest.CaptureFixture[str]) -> None:
        explained = _explained(TypeError("what"))
        assert isinstance(explained, WorkerDefectError)
        assert str(explained) == "a defect of Vinograph stopped the drawing (TypeError)"
        assert "TypeError: what" in capsys.readouterr().err


def resident(pid: int) -> int:
    """Kilobytes that a process has resident, without pages of files."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def open_files(pid: int | str) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _flat(jobs: int) -> list[dict[str, int]]:
    """Draw many jobs, a fifth of them dropped; returns what both processes hold after each tenth."""

    async def scenario() -> list[dict[str, int]]:
        looks = []
        async with running(configuration()) as service:
            for index in range(jobs):
                job = await service.submit(drawing(seed=index, num_inference_steps=1, previews=index % 3 == 0))
                if index % 5 == 0:
                    job.cancel()
                else:
                    await job.result()
                if index % (jobs // 10) == jobs // 10 - 1:
                    child = service.process_ids[0]
                    looks.append(
                        {
                            "own": resident(os.getpid()),
                            "child": resident(child),
                            "own files": open_files("self"),
                            "child files": open_files(child),
                            "tasks": len(asyncio.all_tasks()),
                        }
                    )
        return looks

    return asyncio.run(scenario())


@pytest.mark.parametrize("jobs", [150, pytest.param(5000, marks=pytest.mark.long)])
def test_memory_files_and_tasks_are_flat(jobs: int) -> None:
    looks = _flat(jobs)
    for name in ("own files", "child files", "tasks"):
        assert looks[-1][name] <= looks[len(looks) // 2][name] + 1
    for name in ("own", "child"):
        assert looks[-1][name] - looks[len(looks) // 2][name] < 2000, [each[name] for each in looks]

"""The server's side of a process that draws: it is started, listened to, and replaced if it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from vinograph.resources import child_environment
from vinograph.serve import messages
from vinograph.serve.configuration import Configuration, ServedModel
from vinograph.serve.messages import Settings

_END_SECONDS = 10.0  # that a process has to end in once it was told to
_FIRST_PAUSE = 1.0  # seconds before the second process in a row that drew nothing is replaced
_LONGEST_PAUSE = 60.0


class Listener(Protocol):
    """Who follows a process."""

    def received(self, message: Any) -> None:
        """A message came."""
        ...

    def lost(self, reason: str, *, started: bool) -> None:
        """The process has ended unasked, ``started`` says whether it had begun to take jobs."""
        ...


class WorkerProcess:
    """A process that draws, and those that take its place.

    ``settings`` are what the next one is told at its start.
    """

    def __init__(self, settings: Settings) -> None:
        """Start the process at once, so that it imports what it needs while the server does."""
        self.settings = settings
        self._sending = asyncio.Lock()  # so that messages don't mix, and arrive in order
        self._ending = False
        self._process, self._socket = self._start()

    @property
    def pid(self) -> int:
        """The number of the process that draws now."""
        return self._process.pid

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        own, other = socket.socketpair()
        with other:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vinograph.serve.worker", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                env=child_environment(),
                process_group=0,  # Ctrl-C at the terminal is for the server alone
            )
        with contextlib.suppress(OSError):  # it has ended already, which who listens notices
            own.sendall(messages.pack(self.settings))
        own.setblocking(False)
        return process, own

    async def listen(self, listener: Listener) -> None:
        """Hand messages to ``listener``, and start the process anew whenever it ends unasked."""
        failures = 0
        while True:
            started, worked = await self._listen_to_one(listener)
            if self._ending:
                return
            reason = await self._reap()
            failures = 0 if worked else failures + 1
            listener.lost(reason, started=started)
            while not await self._restarted(failures):
                failures += 1
                listener.lost("the system starts no more processes", started=False)
            if self._ending:
                return

    async def _restarted(self, failures: int) -> bool:
        """Start the process after a pause, unless it shall end; returns whether the system did it."""
        if failures > 1:
            await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 2)))
        if self._ending:
            return True
        try:
            self._process, self._socket = self._start()
        except OSError as error:
            print(f"the process that draws can't be started: {error}", file=sys.stderr, flush=True)
            return False
        return True

    async def _listen_to_one(self, listener: Listener) -> tuple[bool, bool]:
        """Listen to the process until it ends; returns whether it took jobs, and whether it did one."""
        started = worked = False
        try:
            while True:
                message = await self._receive()
                started = started or isinstance(message, messages.Started)
                worked = worked or isinstance(message, messages.Ended)
                listener.received(message)
        except (EOFError, OSError):
            return started, worked

    async def send(self, packed: bytes) -> None:
        """Send a message. Nothing happens where the process has just ended: that is noticed by itself."""
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, packed)
            except OSError:
                return

    async def end(self) -> None:
        """Have the process end after the step under way, and wait for that; kill one that doesn't."""
        self._ending = True
        try:
            async with asyncio.timeout(_END_SECONDS + 1):
                await self.send(messages.pack(messages.End()))
                await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except (subprocess.TimeoutExpired, TimeoutError):
            self._process.kill()
        await self._reap()

    def kill(self) -> None:
        """Kill the process, which doesn't react."""
        self._process.kill()

    def abandon(self) -> None:
        """Kill the process where it is still there, without an event loop."""
        self._ending = True
        self._process.kill()
        self._process.wait()
        self._socket.close()

    async def _receive(self) -> Any:
        size = messages.SIZE.unpack(await self._exactly(messages.SIZE.size))[0]
        return messages.unpack(await self._exactly(size))

    async def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            count = await asyncio.get_running_loop().sock_recv_into(self._socket, rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return content

    async def _reap(self) -> str:
        """Wait for the process, which ends or has ended, and close its socket; returns how it ended."""
        self._socket.close()
        try:
            code = await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def start_processes(configuration: Configuration) -> dict[str, WorkerProcess]:
    """Start a process for each device that the models are on, by :func:`device_of`.

    The one that has the default model loads it. This module imports little, so that the processes
    can be started before the server imports the rest.
    """
    return {device: WorkerProcess(settings) for device, settings in _settings(configuration).items()}


def _settings(configuration: Configuration) -> Mapping[str, Settings]:
    models: dict[str, list[ServedModel]] = {}
    for model in configuration.models:
        models.setdefault(device_of(model), []).append(model)
    default, limits = configuration.models[0], configuration.limits
    return {
        device: Settings(
            models=tuple(own),
            preload=default.name if default in own else None,
            loaded_models=limits.loaded_models,
            memory=limits.memory,
        )
        for device, own in models.items()
    }


def device_of(model: ServedModel) -> str:
    """A text that is the same for models on the same device."""
    return model.device if isinstance(model.device, str) else repr(sorted(model.device.items()))

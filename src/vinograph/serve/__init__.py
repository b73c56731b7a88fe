"""The HTTP server (``vinograph serve``): the APIs of OpenAI's images and of AUTOMATIC1111."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from vinograph.errors import RequestError
from vinograph.serve.configuration import Configuration

_EXTRA = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def run(
    configuration: Configuration, warnings: Sequence[str], say: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Serve until a signal ends the process.

    Args:
        configuration: all settings.
        warnings: what whoever starts the server should know of them.
        say: called with each message to the user.
        warn: called with each warning.

    Raises:
        RequestError: the packages of the extra are not installed, or nothing can listen at the host
            and port.
    """
    missing = [each for each in _EXTRA if importlib.util.find_spec(each) is None]
    if missing:
        raise RequestError(f'the server needs {", ".join(missing)}: pip install "vinograph[serve]"')
    for each in warnings:
        warn(each)
    if configuration.ray.address is not None:
        _run_through_ray(configuration, say)
        return
    from vinograph.serve.worker_process import start_processes

    processes = start_processes(configuration)  # they load the model while this one imports the rest
    try:
        from vinograph.serve.server import serve

        serve(configuration, processes, say)
    finally:
        for process in processes.values():
            process.abandon()


def _run_through_ray(configuration: Configuration, say: Callable[[str], None]) -> None:
    if importlib.util.find_spec("ray") is None:
        raise RequestError('--ray needs ray: pip install "vinograph[serve,ray]"')
    from vinograph.serve.ray_server import serve

    serve(configuration, say)

"""Deploys the server on a Ray cluster, shows its log, and ends it when a signal comes."""

from __future__ import annotations

import http.client
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from vinograph.errors import RequestError, ResourceError, VinographError
from vinograph.resources import cpu_count
from vinograph.serve.configuration import Configuration
from vinograph.serve.messages import Settings
from vinograph.values import shown
from vinograph.web.server import listening

APPLICATION = "vinograph"
"""The name of the application in Ray."""

_FREE = "local"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEATED_SECONDS = 0.5  # in which a second signal is the first one again, as `timeout` and terminals send it
_POLL_SECONDS = 0.2
_PATIENCE = 60.0  # seconds for the HTTP proxy to know of the server
_CONNECT_SECONDS = 10.0
_STARTS = 3  # tries to start Ray on a machine that is busy
_REQUESTS = 10_000  # at the same time, most of which are open streams and probes
_HEALTH_SECONDS = 120.0  # in which a replica answers, whose processors are all drawing
_SHUTDOWN_SECONDS = 20.0  # beyond the deadline, in which a replica that is ended does its last drawing
_BESIDES = 1_000_000_000  # bytes of a replica's memory that are no weights: compiled code and activations
# A replica that becomes free gets the next job at once, and not after half a second.
_ROUTING = {"RAY_SERVE_ROUTER_RETRY_MAX_BACKOFF_S": "0.05"}
_PASSED_ON = (
    *("VINOGRAPH_MODELS", "VINOGRAPH_CACHE", "VINOGRAPH_CACHE_LIMIT"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
)


def serve(configuration: Configuration, say: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Raises:
        RequestError: there is no such cluster, it has no room for a replica, or nothing can listen
            at the host and port.
    """
    with listening(configuration.host, configuration.port) as sockets:
        port = sockets[0].getsockname()[1]  # Ray wants to know which, and opens it itself
    ending = _Ending()
    with ending.by_signals(), _cluster(configuration, ending):
        if not ending.wanted:
            _Server(configuration, port, ending, say).run()


class _Ending:
    """Counts the signals to end."""

    def __init__(self) -> None:
        self.count = 0
        self._at = -_REPEATED_SECONDS
        self.changed = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether a signal has come."""
        return self.count > 0

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Handle the signals within the block."""
        before = self.handle()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle(self) -> Mapping[int, Any]:
        """Handle the signals from now on; Ray does so itself when it starts."""
        return {number: signal.signal(number, self.signalled) for number in _SIGNALS}

    def signalled(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """A signal came."""
        now = time.monotonic()
        if now - self._at >= _REPEATED_SECONDS:
            self.count += 1
            self._at = now
            self.changed.set()


@contextmanager
def _cluster(configuration: Configuration, ending: _Ending) -> Iterator[None]:
    """A connection to the cluster within the block.

    Raises:
        RequestError: there is no such cluster.
    """
    address = configuration.ray.address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == _FREE:
        os.environ |= _alone()
        options |= {"num_cpus": cpu_count(), "include_dashboard": False}
    import ray

    try:
        _connect(options)
    except SystemExit:  # of Ray's handler, which holds until it has started
        ending.signalled()
    ending.handle()
    try:
        yield
    finally:
        ray.shutdown()


def _connect(options: Mapping[str, Any]) -> None:
    """Connect to the cluster, or start it."""
    import ray

    for attempt in range(_STARTS):
        try:
            _check_reachable(options["address"])
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = shown(str(error).strip().partition("\n")[0])
            raise RequestError(
                f"--ray {shown(options['address'])}: there is no Ray cluster ({reason}); start one by "
                "`ray start --head`, or give --ray local for one of this server's own"
            ) from error
        except Exception as error:
            if "timed out during startup" not in str(error):  # Ray waits 30 seconds, and has no class for it
                raise
            ray.shutdown()
            if attempt == _STARTS - 1:
                raise ResourceError(
                    "Ray's processes didn't start in time: this machine is too busy; try again later"
                ) from error
        else:
            return


def _check_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray would look for it for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _alone() -> dict[str, str]:
    """Environment of a cluster of one machine: it listens to this machine alone, and asks for a token."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the only way to have all of Ray at a loopback address
        "RAY_enable_worker_prestart": "0",  # nobody else uses this cluster
        "RAY_prestart_worker_first_driver": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


class _Server:
    """The application on the cluster."""

    def __init__(self, configuration: Configuration, port: int, ending: _Ending, say: Callable[[str], None]) -> None:
        self._configuration = configuration
        self._port = port
        self._ending = ending
        self._say = say
        self._over = False

    def run(self) -> None:
        """Deploy, wait for signals, and end."""
        from ray import serve as ray_serve

        self._deploy()
        try:
            if self._wait_until_reachable():
                self._follow_log()
                self._say(f"the server listens at {self._address}; Ctrl-C ends it")
                self._wait_until_ended()
        finally:
            self._over = True
            ray_serve.delete(APPLICATION, _blocking=self._ending.count <= 2)

    @property
    def _address(self) -> str:
        host = self._configuration.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    def _deploy(self) -> None:
        from ray import serve as ray_serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # the server has a log of its own
        host = "127.0.0.1" if self._configuration.host == "localhost" else self._configuration.host
        ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": self._port})
        target = ray_serve.RunTarget(self._bound(), name=APPLICATION, route_prefix="/")
        ray_serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)

    def _bound(self) -> Any:
        """The deployments, with their options."""
        from ray import serve as ray_serve
        from ray.serve.config import AutoscalingConfig

        from vinograph.serve.ray_ingress import INGRESS, Ingress
        from vinograph.serve.ray_queue import DRAWER
        from vinograph.serve.ray_replica import Drawer

        configuration, options = self._configuration, self._configuration.ray
        least, most = options.replicas
        cpus = options.cpus or int(_least("CPU"))
        memory = options.memory or _estimate(configuration)
        runtime = {"env_vars": {**_ROUTING, **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}}}
        limits = configuration.limits
        drawers = ray_serve.deployment(
            name=DRAWER,
            max_ongoing_requests=1,
            health_check_timeout_s=_HEALTH_SECONDS,
            max_queued_requests=limits.queue + most,  # requests that are on their way to an idle replica count
            autoscaling_config=AutoscalingConfig(
                min_replicas=least,
                max_replicas=most,
                target_ongoing_requests=options.requests_per_replica,
                upscale_delay_s=options.upscale_delay,
                downscale_delay_s=options.downscale_delay,
                look_back_period_s=max(1.0, min(30.0, options.upscale_delay)),
            ),
            graceful_shutdown_wait_loop_s=_POLL_SECONDS,
            graceful_shutdown_timeout_s=limits.deadline + _SHUTDOWN_SECONDS,
            ray_actor_options={"num_cpus": cpus, "memory": memory, "runtime_env": runtime},
        )(Drawer).bind(_settings(configuration), cpus)
        ingress = ray_serve.deployment(
            name=INGRESS,
            num_replicas=1,
            max_ongoing_requests=_REQUESTS,
            health_check_timeout_s=_HEALTH_SECONDS,
            graceful_shutdown_wait_loop_s=_POLL_SECONDS,
            ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}, "runtime_env": runtime},
        )(ray_serve.ingress()(Ingress))
        return ingress.bind(configuration, drawers, APPLICATION)

    def _wait_until_reachable(self) -> bool:
        """Wait until the application answers; False where a signal came before."""
        from ray import serve as ray_serve

        from vinograph.serve.ray_ingress import INGRESS

        until = math.inf
        while not self._ending.wanted:
            if self._answers():
                return True
            own = ray_serve.status().applications[APPLICATION]
            if own.status == "DEPLOY_FAILED":
                raise RequestError(f"Ray couldn't deploy the server: {shown(own.message)}")
            if INGRESS in own.deployments and own.deployments[INGRESS].replica_states.get("RUNNING"):
                until = min(until, time.monotonic() + _PATIENCE)
            if time.monotonic() > until:
                raise RequestError(
                    f"{self._address} doesn't answer, though the server runs: Ray Serve has another host or port on "
                    "this cluster already; give these as --host and --port, or end it by `serve shutdown`"
                )
            self._ending.changed.wait(_POLL_SECONDS)
        return False

    def _answers(self) -> bool:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._configuration.host, self._configuration.host)
        connection = http.client.HTTPConnection(host, self._port, timeout=5)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _follow_log(self) -> None:
        threading.Thread(target=self._write_log, name="log", daemon=True).start()

    def _write_log(self) -> None:
        """Write the application's log to standard error; begin again where the ingress is a new one."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        while not self._over:
            with suppress(RayError, RayServeException):  # there may be no ingress for a moment
                for lines in _handle().options(stream=True).log.remote():
                    print(lines, file=sys.stderr, flush=True)
            time.sleep(_POLL_SECONDS)

    def _wait_until_ended(self) -> None:
        """Wait for a signal, then for the drawings under way."""
        while not self._ending.wanted:
            self._ending.changed.wait()
        self._ending.changed.clear()
        closing = _handle().close.remote(self._configuration.grace)
        hurried = False
        while True:
            with suppress(TimeoutError):
                closing.result(timeout_s=_POLL_SECONDS)
                return
            if self._ending.count > 1 and not hurried:
                hurried = True
                _handle().close.remote(0.0)
            if self._ending.count > 2:
                return


def _handle() -> Any:
    from ray import serve as ray_serve

    return ray_serve.get_app_handle(APPLICATION)


def _settings(configuration: Configuration) -> Settings:
    limits = configuration.limits
    return Settings(configuration.models, configuration.models[0].name, limits.loaded_models, limits.memory)


def _least(resource: str) -> float:
    """As much as the node of the cluster has that has the least, but for nodes that have none."""
    import ray

    found = [node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1.0, min(filter(None, found), default=1.0))


def _estimate(configuration: Configuration) -> int:
    """Bytes of memory for a replica: the largest models that are loaded together, and what they need besides.

    It is no more than a node has: weights are mapped from files, and may be read again.
    """
    from vinograph.serve.worker_models import open_served

    sizes = []
    for served in configuration.models:
        with suppress(VinographError):  # the server says what is wrong with it
            model = open_served(served).model
            sizes.append(sum(model.weights_size(name) for name in model.manifest.components))
    needed = _BESIDES + sum(sorted(sizes)[-configuration.limits.loaded_models :])
    return int(min(needed, _least("memory")))

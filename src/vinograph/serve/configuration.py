"""The server's configuration, as its parts read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServedModel:
    """A model that the server offers.

    ``source`` is any source of a model. ``defaults`` replace defaults of the call ``generate``, by
    the names of :class:`vinograph.request.Request`; ``adapters`` are used where a request names
    none.
    """

    name: str
    source: str
    device: str | Mapping[str, str] = "CPU"
    precision: str | Mapping[str, str] = "auto"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """The most that is taken.

    Attributes:
        body: bytes of a request's body.
        pixels: pixels of one picture that is drawn.
        input_pixels: pixels of one picture that a client sends.
        pictures: pictures of one request.
        steps: denoising steps of one picture.
        queue: requests that wait.
        deadline: seconds from a request's arrival to its end.
        memory: bytes that the process that draws may have resident before it unloads models that are
            not in use; None for no limit of its own.
        loaded_models: models that keep their weights at the same time.
    """

    body: int = 50 * MEGABYTE
    pixels: int = 4_200_000
    input_pixels: int = 64_000_000
    pictures: int = 10
    steps: int = 150
    queue: int = 32
    deadline: float = 600.0
    memory: int | None = None
    loaded_models: int = 2


@dataclass(frozen=True)
class RayOptions:
    """How the server draws on a Ray cluster.

    Attributes:
        address: "auto" for the cluster of this machine, "local" for one that starts and ends with the
            server, or HOST:PORT of a cluster's head; None to draw without Ray.
        replicas: the least and the most replicas; each draws one picture at a time.
        cpus: processors of a replica; None for all of the smallest node.
        memory: bytes of memory that are reserved for a replica; None for an estimate by its models.
        requests_per_replica: requests, those that wait included, for each of which a replica is
            wanted.
        upscale_delay: seconds of too many requests before a replica is added.
        downscale_delay: seconds of too few requests before a replica is ended.
    """

    address: str | None = None
    replicas: tuple[int, int] = (1, 1)
    cpus: int | None = None
    memory: int | None = None
    requests_per_replica: float = 2.0
    upscale_delay: float = 10.0
    downscale_delay: float = 300.0


@dataclass(frozen=True)
class Configuration:
    """All settings of the server.

    Attributes:
        models: what is offered; the first is the default model.
        aliases: other names of models, by which clients ask for them.
        strict_models: whether an unknown name is an error; otherwise the default model draws.
        host: the name or address to listen at.
        port: the port to listen at.
        keys: API keys; any of them will do. None are needed where this is empty.
        no_auth: whether other machines may connect without a key.
        allowed_hosts: further names under which the server may be asked.
        allowed_origins: origins of pages that may use the server from a browser (CORS).
        limits: the most that is taken.
        grace: seconds that the drawing under way may still take after the signal to end.
        page: whether the Gradio page is served, too.
        gallery: a folder in which the page keeps its pictures; None for none.
        metadata: whether pictures hold their request, also where the client doesn't ask for it.
        log_prompts: whether the log holds prompts.
        log_format: "text" or "json".
        ray: how it draws on a Ray cluster, where it does.
    """

    models: tuple[ServedModel, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    strict_models: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    keys: tuple[str, ...] = field(default=(), repr=False)
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    grace: float = 30.0
    page: bool = False
    gallery: str | None = None
    metadata: bool = False
    log_prompts: bool = False
    log_format: str = "text"
    ray: RayOptions = field(default_factory=RayOptions)

"""SDXL as optimum-intel exports it: OpenVINO IR whose ports are made those of our components, weights as they are.

An export has its networks in ``unet/openvino_model.xml`` and so on, beside their configurations. It differs from our
own conversion: each hidden state of a text encoder is an output, times are whole numbers, and the UNet doubles sizes
on its way up, whatever it halved: it draws sizes alone that it halves without a remainder. Its VAE overflows in half
precision. OpenVINO's notebook of SDXL-Turbo writes a tiny VAE in the place of the full one, which is taken as such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openvino as ov
from openvino import opset13 as opset

from vinograph.errors import DamagedModelError, ModelError
from vinograph.families.sdxl import network as unet
from vinograph.families.sdxl.checkpoint_config import SdxlConfig
from vinograph.families.sdxl.checkpoint_layout import EXPORTED_FILE, EXPORTED_WEIGHTS
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.models.autoencoders import AutoencoderConfigs, tiny_autoencoder, tiny_plans
from vinograph.models.checkpoint import Subfolder
from vinograph.models.parts import ComponentPlan, Part, parse_config
from vinograph.networks import clip, tiny_vae, vae
from vinograph.networks.clip import ClipConfig
from vinograph.networks.graph import Network, Port, Ports, Storage, storage_of
from vinograph.networks.tiny_vae import TinyAutoencoderConfig
from vinograph.networks.vae import AutoencoderConfig
from vinograph.runtime.devices import core
from vinograph.runtime.precise import mark_angles
from vinograph.schema import label

Outputs = Callable[[ov.Model], dict[str, ov.Output]]

_TYPES = {"f32": ov.Type.f32, "i64": ov.Type.i64}


@dataclass(frozen=True)
class ExportedModels:
    """An export's networks, fit to be made a bundle.

    ``tiny_vae`` is one that was named beside it, no IR, and converted as always. Without it, the configuration's is
    the export's own, where the export has no full one.
    """

    places: Mapping[str, Subfolder]
    config: SdxlConfig
    tiny_vae: Part[TinyAutoencoderConfig] | None

    @classmethod
    def read(cls, places: Mapping[str, Subfolder]) -> ExportedModels:
        """Read the configurations.

        Raises:
            ModelError: a configuration makes no sense.
            DamagedModelError: a configuration is not JSON.
        """
        tiny = tiny_autoencoder(places["tiny_vae"]) if "tiny_vae" in places else None
        own = _autoencoder(places)
        own_tiny = own if isinstance(own, TinyAutoencoderConfig) else None
        autoencoders = AutoencoderConfigs(
            vae=own if isinstance(own, AutoencoderConfig) else None,
            tiny_vae=tiny.config if tiny is not None else own_tiny,
        )
        config = SdxlConfig(
            text_encoder=parse_config(places["text_encoder"], ClipConfig.from_mapping),
            text_encoder_2=parse_config(places["text_encoder_2"], ClipConfig.from_mapping),
            unet=parse_config(places["unet"], UNetConfig.from_mapping),
            autoencoders=autoencoders,
        )
        return cls(places, config, tiny)

    @property
    def grid_multiple(self) -> int:
        """Latents must be so many wide and high, or a multiple."""
        return int(2 ** (len(self.config.unet.block_out_channels) - 1))

    def plans(self) -> tuple[ComponentPlan, ...]:
        """The components, each graph of which is read once to see whether it can be used.

        Raises:
            ModelError: a graph hasn't the ports of an export that can be used.
            DamagedModelError: OpenVINO can't read a graph.
        """
        config, vaes = self.config, self.config.autoencoders
        layers = config.text_encoder.num_hidden_layers, config.text_encoder_2.num_hidden_layers
        states = clip.hidden_states_ports(config.text_encoder, projects=False)
        states_2 = clip.hidden_states_ports(config.text_encoder_2, projects=True)
        parts: dict[str, tuple[Ports, Outputs]] = {
            "text_encoder": (states, partial(_text_outputs, layers[0], ())),
            "text_encoder_2": (states_2, partial(_text_outputs, layers[1], ("text_embeds",))),
            "unet": (unet.ports(config.unet), partial(_outputs, ("out_sample",))),
        }
        if vaes.vae is not None:
            parts["vae_decoder"] = vae.decoder_ports(vaes.vae), partial(_outputs, ("sample",))
            parts["vae_encoder"] = vae.encoder_ports(vaes.vae), partial(_outputs, ("latent_parameters",))
        elif self.tiny_vae is None and vaes.tiny_vae is not None:
            parts["tiny_vae_decoder"] = tiny_vae.decoder_ports(vaes.tiny_vae), _only_output
            parts["tiny_vae_encoder"] = tiny_vae.encoder_ports(vaes.tiny_vae), _only_output
        found = [self._plan(name, *declared) for name, declared in parts.items()]
        return (*found, *(tiny_plans(self.tiny_vae) if self.tiny_vae is not None else ()))

    def _plan(self, name: str, ports: Ports, adapt: Outputs) -> ComponentPlan:
        folder = self.places[name.removeprefix("tiny_")].directory
        xml, weights = folder / EXPORTED_FILE, folder / EXPORTED_WEIGHTS

        def build(_storage: Storage) -> Network:
            return _network(name, xml, ports, adapt)

        checked = build(Storage(check_only=True))
        size = weights.stat().st_size
        stored = storage_of(checked.model)
        return ComponentPlan(
            name, build, checked.ports, checked.f16_safe, stored, size, size, (xml, weights), is_ir=True
        )


def _autoencoder(places: Mapping[str, Subfolder]) -> AutoencoderConfig | TinyAutoencoderConfig:
    """The configuration of the export's own VAE, of which both halves have it."""
    kinds = {half: places[half].config().get("_class_name") for half in ("vae_decoder", "vae_encoder")}
    if kinds["vae_decoder"] != kinds["vae_encoder"]:
        for half, kind in kinds.items():
            if kind is None:
                raise ModelError(
                    f"{places[half].directory / 'config.json'} has no _class_name, which says what VAE this is half "
                    "of, and the other half's has one: export the checkpoint again"
                )
        told = ", ".join(f"{half} is an {label(kind)}" for half, kind in kinds.items())
        checkpoint = places["vae_decoder"].checkpoint
        raise ModelError(
            f"{checkpoint.id} has halves of two VAEs: {told}. Export it again, and convert that with the tiny "
            f"VAE beside its own: vinograph convert {checkpoint.source} BUNDLE --tiny-vae SOURCE"
        )
    if kinds["vae_decoder"] == "AutoencoderTiny":
        return parse_config(places["vae_decoder"], TinyAutoencoderConfig.from_mapping)
    return parse_config(places["vae_decoder"], AutoencoderConfig.from_mapping)


def _outputs(names: Collection[str], model: ov.Model) -> dict[str, ov.Output]:
    """What goes into the results of those names."""
    found = {name: port.get_node().input_value(0) for port in model.outputs for name in port.get_names()}
    missing = [name for name in names if name not in found]
    if missing:
        raise ModelError(f"has no output {', '.join(missing)}, but {', '.join(sorted(found))}")
    return {name: found[name] for name in names}


def _only_output(model: ov.Model) -> dict[str, ov.Output]:
    """What goes into the one result, whatever its name: the notebook has had several for the tiny VAE's."""
    if len(model.outputs) != 1:
        raise ModelError(f"has {len(model.outputs)} outputs where a tiny VAE has one")
    return {"output": model.output(0).get_node().input_value(0)}


def _text_outputs(layers: int, others: Collection[str], model: ov.Model) -> dict[str, ov.Output]:
    """Hidden states joined to one output, but for those of the last layer, and the ``others``."""
    states = _outputs([f"hidden_states.{layer}" for layer in range(layers)], model).values()
    joined = opset.concat([opset.unsqueeze(state, opset.constant([1])) for state in states], 1)
    return {"hidden_states": joined.output(0), **_outputs(others, model)}


def _network(name: str, file: Path, ports: Ports, adapt: Outputs) -> Network:
    """The graph in ``file``, with our ports. The file stays mapped, it is not read."""
    try:
        model = core().read_model(file)
    except RuntimeError as error:
        raise DamagedModelError(f"OpenVINO can't read {file}: {_first_line(error)}") from error
    try:
        parameters = _parameters(model, ports.inputs)
        adapted = ov.Model(
            [opset.result(output) for output in adapt(model).values()], list(parameters.values()), "vinograph"
        )
        adapted.validate_nodes_and_infer_types()
    except ModelError as error:
        raise ModelError(f"{file} {error}; export the checkpoint again, with a newer optimum-intel") from error
    except RuntimeError as error:
        raise ModelError(f"{file} is no graph for any size: {_first_line(error)}") from error
    for port, (output, tensor) in zip(adapted.outputs, ports.outputs.items(), strict=True):
        port.get_tensor().set_names({output})
        if not _is_as_declared(port, tensor):
            shape = f"{list(tensor.shape)}, as its configuration says"
            raise DamagedModelError(f"{file}: the output {output} is {port.get_partial_shape()}, not {shape}")
    mark_angles(adapted)
    return Network(adapted, ports, f16_safe=not name.startswith("vae_"))


def _is_as_declared(port: ov.Output, declared: Port) -> bool:
    """Whether an output has the declared type, rank and fixed dimensions, as far as they are known."""
    shape = port.get_partial_shape()
    if port.get_element_type().get_type_name() != declared.dtype or len(shape) != len(declared.shape):
        return False
    pairs = zip(shape, declared.shape, strict=True)
    return all((dim.is_dynamic and isinstance(size, (str, int))) or dim == size for dim, size in pairs)


def _parameters(model: ov.Model, declared: Mapping[str, Port]) -> dict[str, Any]:
    """The graph's inputs in the order declared, with the types and shapes declared."""
    found = {name: port.get_node() for port in model.inputs for name in port.get_names()}
    if found.keys() != declared.keys():
        raise ModelError(f"takes {', '.join(sorted(found))}, not {', '.join(sorted(declared))}")
    for name, tensor in declared.items():
        parameter = found[name]
        fixed = parameter.get_partial_shape()
        wanted = ov.PartialShape([-1 if isinstance(size, str) else size for size in tensor.shape])
        if name != "timestep" and not fixed.compatible(wanted):
            raise ModelError(f"takes {name} of the shape {fixed}, not {wanted}")
        parameter.set_element_type(_TYPES[tensor.dtype])
        parameter.set_partial_shape(wanted)
        parameter.output(0).get_tensor().set_names({name})
    return {name: found[name] for name in declared}


def _first_line(error: Exception) -> str:
    """OpenVINO's messages begin with where in its source they are raised; what they say comes last."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__

"""The OpenVINO runtime: devices, precisions, shapes, and what goes wrong there."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset

from tests.bundles import save_bundle
from vinograph import DamagedModelError, DeviceError, NumericalError, RequestError, ResourceError
from vinograph.runtime import sections, sessions, tuning
from vinograph.runtime.devices import check_device, check_precision, devices
from vinograph.runtime.devices import machine as devices_machine
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile

LATENTS = {"latents": np.ones((1, 4, 4, 6), np.float32)}

OpenSession = Callable[..., Session]


@pytest.fixture
def session(tiny_bundle: Path) -> OpenSession:
    def make(device: str = "CPU", precision: str = "f32", *, f16_safe: bool = True, name: str = "vqgan") -> Session:
        return Session(IrFile(name, tiny_bundle / f"{name}.xml", f16_safe), device, precision)

    return make


class Machine:
    """A core of a machine with other devices, which run on the CPU; it records their settings."""

    def __init__(self, *there: str, f16: tuple[str, ...] = ()) -> None:
        self.available_devices = list(there)
        self.settings: dict[str, Any] = {}
        self._f16 = f16
        self._core = ov.Core()

    def get_property(self, device: str, name: str) -> Any:
        assert name == "INFERENCE_PRECISION_HINT"
        return ov.Type.f16 if device in self._f16 else ov.Type.f32

    def read_model(self, file: Path) -> Any:
        return self._core.read_model(file)

    def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
        self.settings = settings
        return self._core.compile_model(model, "CPU", {})


class TestDevices:
    def test_the_devices_of_this_machine(self) -> None:
        found = {each.id: each for each in devices()}
        assert found["CPU"].name
        assert "f32" in found["CPU"].precisions
        assert set(found["CPU"].precisions) <= {"f32", "bf16", "f16", "int8"}

    @pytest.mark.parametrize(
        "device", ["CPU", "AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU", "BATCH:CPU(4)", "AUTO:-CPU"]
    )
    def test_device_strings_of_openvino(self, device: str) -> None:
        check_device(device)

    @pytest.mark.parametrize(
        "device", ["GPU", "NPU", "cpu", "CPU.7", "HETERO:GPU,CPU", "AUTO:GPU", "MULTI:CPU,NPU", "MULTI CPU"]
    )
    def test_an_absent_device_is_refused_with_those_that_are_there(
        self, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vinograph.runtime.devices.core", lambda: Machine("CPU", "XPU"))
        missing = (
            next(each for each in device.partition(":")[2].split(",") or [device] if each != "CPU")
            if ":" in device
            else device
        )
        with pytest.raises(DeviceError, match=f"device '{missing}' is not on this machine; there is CPU, XPU"):
            check_device(device)

    def test_one_of_several_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vinograph.runtime.devices.core", lambda: Machine("CPU", "GPU.0", "GPU.1"))
        for device in ("GPU", "GPU.1", "HETERO:GPU.0,CPU"):
            check_device(device)
        with pytest.raises(DeviceError, match=r"device 'GPU.2' is not on this machine"):
            check_device("GPU.2")

    @pytest.mark.parametrize("device", ["HETERO", "MULTI", "BATCH:"])
    def test_a_combination_names_its_devices(self, device: str) -> None:
        with pytest.raises(DeviceError, match="name the devices too, such as"):
            check_device(device)

    @pytest.mark.parametrize("device", ["", "  ", None, 7])
    def test_an_empty_name(self, device: Any) -> None:
        with pytest.raises(DeviceError, match="give a device as OpenVINO names it, such as CPU"):
            check_device(device)

    @pytest.mark.parametrize("device", ["CPU", "AUTO:CPU", "HETERO:CPU"])
    def test_the_device_that_ran_is_reported(self, session: OpenSession, device: str) -> None:
        one = session(device)
        assert not one.execution_devices
        one(LATENTS)
        assert one.execution_devices == ("CPU",)


class TestPrecision:
    @pytest.mark.parametrize("precision", ["auto", "f32", "bf16", "f16"])
    def test_the_names_of_precisions(self, precision: str) -> None:
        check_precision(precision)

    @pytest.mark.parametrize("precision", ["fp16", "F32", "", None])
    def test_another_name_is_refused_with_the_known_ones(self, precision: Any) -> None:
        with pytest.raises(RequestError, match=f"precision is {precision!r}; give one of auto, f32, bf16, f16"):
            check_precision(precision)

    def test_f32_computes_in_f32(self, session: OpenSession) -> None:
        one = session(precision="f32")
        one(LATENTS)
        assert one.precision == "f32"

    def test_auto_says_what_it_chose(self, session: OpenSession) -> None:
        one = session(precision="auto")
        one(LATENTS)
        assert one.precision in ("f32", "bf16", "f16")

    @pytest.mark.parametrize(
        ("device", "f16_safe", "precision"),
        [
            ("GPU", False, "f32"),
            ("GPU", True, None),
            ("CPU", False, None),
            ("AUTO", False, "f32"),
            ("HETERO:GPU,CPU", False, "f32"),
            ("HETERO:GPU,CPU", True, None),
        ],
    )
    def test_components_that_overflow_in_f16_run_in_f32(
        self,
        session: OpenSession,
        monkeypatch: pytest.MonkeyPatch,
        device: str,
        f16_safe: bool,
        precision: str | None,
    ) -> None:
        monkeypatch.setattr(sessions, "f32_is_faster", lambda: False)
        one = session(device, "auto", f16_safe=f16_safe)
        machine = Machine("CPU", "GPU", f16=("GPU",))
        one._core = machine
        one(LATENTS)
        assert machine.settings.get("INFERENCE_PRECISION_HINT") == precision

    def test_no_precision_is_set_on_a_device_that_computes_f32(self, session: OpenSession) -> None:
        for device, there in (("AUTO", ("CPU",)), ("GPU", ("CPU", "GPU"))):
            one = session(device, "auto", f16_safe=False)
            one._core = machine = Machine(*there)
            one(LATENTS)
            assert "INFERENCE_PRECISION_HINT" not in machine.settings

    @pytest.mark.parametrize(
        ("device", "faster", "share", "expected"),
        [
            ("CPU", True, 8, "f32"),
            pytest.param("CPU", True, 7.9, None, id="too large"),
            pytest.param("CPU", True, 0, "f32", id="unknown memory"),
            ("CPU", False, 8, None),
            ("AUTO", True, 8, None),
            ("GPU", True, 8, None),
        ],
    )
    def test_auto_is_f32_on_a_cpu_that_is_faster_in_it(
        self,
        tiny_bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
        device: str,
        faster: bool,
        share: float,
        expected: str | None,
    ) -> None:
        source = IrFile("vqgan", tiny_bundle / "vqgan.xml")
        monkeypatch.setattr(sessions, "f32_is_faster", lambda: faster)
        monkeypatch.setattr(sessions, "memory_installed", lambda: share * source.size)
        one = Session(source, device, "auto")
        one._core = machine = Machine("CPU", "GPU")
        one(LATENTS)
        assert machine.settings.get("INFERENCE_PRECISION_HINT") == expected

    def test_a_named_precision_stays_where_f32_is_faster(
        self, session: OpenSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sessions, "f32_is_faster", lambda: True)
        one = session("CPU", "bf16")
        one._core = machine = Machine("CPU")
        one(LATENTS)
        assert machine.settings["INFERENCE_PRECISION_HINT"] == "bf16"

    @pytest.mark.parametrize(("faster", "tried"), [(True, "bf16"), (False, "f32")])
    def test_the_other_precision_is_tried_when_settings_are_measured(
        self, session: OpenSession, monkeypatch: pytest.MonkeyPatch, faster: bool, tried: str
    ) -> None:
        monkeypatch.setattr(sessions, "f32_is_faster", lambda: faster)
        monkeypatch.setattr(sessions, "machine", lambda: replace(devices_machine(), precision="bf16"))
        monkeypatch.setattr(tuning, "SHORTEST_CALL", 0)
        asked = {each.precision for each in session("CPU", "auto").find_fastest_setting(LATENTS).seconds}
        assert asked == {None, tried}

    @pytest.mark.parametrize("f16_safe", [True, False])
    def test_the_requested_precision_is_passed_on(self, session: OpenSession, f16_safe: bool) -> None:
        one = session("GPU", "f16", f16_safe=f16_safe)
        one._core = machine = Machine("GPU", f16=("GPU",))
        one(LATENTS)
        assert machine.settings["INFERENCE_PRECISION_HINT"] == "f16"


class TestCalling:
    def test_outputs_by_name_in_float32(self, session: OpenSession) -> None:
        outputs = session()(LATENTS)
        assert {name: value.shape for name, value in outputs.items()} == {"image": (1, 3, 16, 24)}
        assert outputs["image"].dtype == np.float32

    def test_results_are_not_overwritten_by_the_next_call(self, session: OpenSession) -> None:
        one = session()
        first = one(LATENTS)["image"]
        kept = first.copy()
        one({"latents": -LATENTS["latents"]})
        assert np.array_equal(first, kept)

    def test_inputs_need_not_be_contiguous(self, session: OpenSession) -> None:
        values = np.random.RandomState(0).normal(size=(1, 6, 4, 4)).astype(np.float32)
        turned = values.transpose(0, 3, 2, 1)
        one = session()
        assert np.array_equal(one({"latents": turned})["image"], one({"latents": turned.copy()})["image"])

    def test_several_components_have_sessions_of_their_own(self, session: OpenSession) -> None:
        ids = np.ones((2, 7), np.int64)
        states = session(name="text_encoder")({"input_ids": ids, "attention_mask": ids})["hidden_states"]
        assert states.shape == (2, 7, 8)


class TestShapes:
    """A graph is compiled for the shapes at hand; the few compiled last are kept."""

    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        compiled: list[tuple[int, ...]] = []
        compile_model = ov.Core.compile_model

        def counted(self: ov.Core, model: Any, *args: Any) -> Any:
            compiled.append(tuple(model.inputs[0].get_shape()))
            return compile_model(self, model, *args)

        monkeypatch.setattr(ov.Core, "compile_model", counted)
        return compiled

    def test_each_shape_is_compiled_once(self, session: OpenSession, compiled: list[Any]) -> None:
        one = session()
        sizes = [4, 6, 4, 6, 6, 4]
        for size in sizes:
            assert one({"latents": np.ones((1, 4, size, size), np.float32)})["image"].shape == (
                1,
                3,
                4 * size,
                4 * size,
            )
        assert compiled == [(1, 4, 4, 4), (1, 4, 6, 6)]

    def test_the_entry_used_longest_ago_goes(self, session: OpenSession, compiled: list[Any]) -> None:
        one = session()
        for size in (4, 6, 4, 8, 4, 6):
            one({"latents": np.ones((1, 4, size, size), np.float32)})
        assert [shape[2] for shape in compiled] == [4, 6, 8, 6]

    def test_nothing_is_read_before_the_first_call(self, tmp_path: Path) -> None:
        Session(IrFile("vqgan", tmp_path / "nowhere.xml"), "CPU", "f32")


class TestTrouble:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_and_infinity(self, session: OpenSession, value: float) -> None:
        """The tiny prior passes its input on."""
        inputs = {
            "x": np.full((1, 16, 3, 3), value, np.float32),
            "r": np.ones(1, np.float32),
            "keys": np.ones((1, 1, 4, 8), np.float32),
            "values": np.ones((1, 1, 4, 8), np.float32),
        }
        with pytest.raises(NumericalError, match="the prior stage computed NaN or infinity in f32") as caught:
            session(name="prior")(inputs)
        assert (caught.value.stage, caught.value.precision) == ("prior", "f32")
        assert "run `vinograph verify` on the bundle" in str(caught.value)

    def test_in_another_precision_the_error_proposes_f32(self, tmp_path: Path) -> None:
        bundle = save_bundle(tmp_path / "broken", broken="vqgan")
        one = Session(IrFile("vqgan", bundle.path / "vqgan.xml"), "CPU", "bf16")
        one._core = Machine("CPU")
        with pytest.raises(NumericalError) as caught:
            one(LATENTS)
        if one.precision != "f32":
            assert str(caught.value).endswith(": try precision f32")

    @pytest.mark.parametrize("content", [b"", b"<net", b"<net/>", b"\0" * 100])
    def test_a_graph_that_cannot_be_read(self, tiny_bundle: Path, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "vqgan.xml").write_bytes(content)
        shutil.copy(tiny_bundle / "vqgan.bin", tmp_path)
        with pytest.raises(DamagedModelError, match=r"OpenVINO can't compile .*vqgan.xml"):
            Session(IrFile("vqgan", tmp_path / "vqgan.xml"), "CPU", "f32")(LATENTS)

    @pytest.mark.parametrize(
        "error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("could not allocate memory")]
    )
    def test_too_little_memory(self, session: OpenSession, error: Exception) -> None:
        def fail(*_: Any) -> Any:
            raise error

        one = session()
        one._core = SimpleNamespace(read_model=ov.Core().read_model, compile_model=fail)
        with pytest.raises(
            ResourceError, match=r"not enough memory to compile vqgan: .* GB are free, and its weights alone have"
        ):
            one(LATENTS)

    def test_a_precision_that_the_device_refuses(self, session: OpenSession) -> None:
        def fail(*_: Any) -> Any:
            raise RuntimeError("Wrong value f16 for property key INFERENCE_PRECISION_HINT")

        one = session(precision="f16")
        one._core = SimpleNamespace(read_model=ov.Core().read_model, compile_model=fail)
        with pytest.raises(RequestError, match="CPU can't compile vqgan in f16: Wrong value f16"):
            one(LATENTS)


class TestPreparing:
    def test_a_call_uses_the_prepared_model(self, session: OpenSession, monkeypatch: pytest.MonkeyPatch) -> None:
        one, counting = session("CPU"), Counting(ov.Core())
        monkeypatch.setattr(one, "_core", counting)
        shapes = {name: value.shape for name, value in LATENTS.items()}
        one.prepare(shapes)
        one(LATENTS)
        one.prepare(shapes)
        one(LATENTS)
        assert counting.compiled == 1

    def test_the_call_raises_what_failed(self, tmp_path: Path) -> None:
        damaged = tmp_path / "vqgan.xml"
        damaged.write_text("no model")
        one = Session(IrFile("vqgan", damaged), "CPU", "f32")
        one.prepare({name: value.shape for name, value in LATENTS.items()})
        with pytest.raises(DamagedModelError, match="can't compile"):
            one(LATENTS)


class Counting:
    """A core that counts what it compiles."""

    def __init__(self, core: ov.Core) -> None:
        self.read_model, self._compile = core.read_model, core.compile_model
        self.compiled = 0

    def compile_model(self, *given: Any) -> ov.CompiledModel:
        self.compiled += 1
        return self._compile(*given)


class TestSections:
    """A graph whose weights fill more than one section."""

    SIDE = 64

    @pytest.fixture
    def xml(self, tmp_path: Path) -> Path:
        return self.save(tmp_path)

    def save(self, folder: Path, *, early: bool = False) -> Path:
        """Eight layers that all take the first's output; with ``early``, the second is an output."""
        rng, side = np.random.default_rng(0), self.SIDE
        x = opset.parameter([-1, side], ov.Type.f32)
        x.output(0).get_tensor().set_names({"x"})
        first = hidden = opset.tanh(x)
        layers = []
        for _ in range(8):
            weight = opset.constant(rng.standard_normal((side, side), np.float32) / side)
            hidden = opset.add(opset.add(hidden, opset.tanh(opset.matmul(hidden, weight, False, False))), first)
            layers.append(hidden)
        given = {"z": layers[1], "y": hidden} if early else {"y": hidden}
        for name, value in given.items():
            value.output(0).get_tensor().set_names({name})
        model = ov.Model([opset.result(value) for value in given.values()], [x], "layers")
        ov.save_model(model, folder / "layers.xml", compress_to_fp16=False)
        return folder / "layers.xml"

    def test_sections_compute_the_same(self, xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs = {"x": np.random.default_rng(1).standard_normal((3, self.SIDE), np.float32)}
        whole = Session(IrFile("layers", xml), "CPU", "f32")(inputs)
        monkeypatch.setattr(sessions, "_SECTION_SIZE", 2 * 4 * self.SIDE**2)
        compiled: list[ov.Model] = []
        compile_model = ov.Core.compile_model

        def noted(self: ov.Core, model: Any, *given: Any) -> Any:
            compiled.append(model)
            return compile_model(self, model, *given)

        monkeypatch.setattr(ov.Core, "compile_model", noted)
        session = Session(IrFile("layers", xml), "CPU", "f32")
        for _ in range(2):
            assert session(inputs).keys() == whole.keys()
            np.testing.assert_allclose(session(inputs)["y"], whole["y"], rtol=1e-6)
        products = [[node.get_type_name() for node in each.get_ops()].count("MatMul") for each in compiled]
        assert len(products) >= 3
        assert sum(products) == 8

    def test_an_early_output_is_passed_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        xml = self.save(tmp_path, early=True)
        inputs = {"x": np.random.default_rng(1).standard_normal((3, self.SIDE), np.float32)}
        whole = Session(IrFile("layers", xml), "CPU", "f32")(inputs)
        monkeypatch.setattr(sessions, "_SECTION_SIZE", 2 * 4 * self.SIDE**2)
        monkeypatch.setattr(sessions, "_MOST_PASSING", 3)
        assert len(cuts_of(ov.Core().read_model(xml))) >= 2
        sections = Session(IrFile("layers", xml), "CPU", "f32")(inputs)
        assert sections.keys() == whole.keys() == {"y", "z"}
        for name, value in whole.items():
            np.testing.assert_allclose(sections[name], value, rtol=1e-6)

    @pytest.mark.parametrize(
        ("layers", "expected"), [(2, [2, 2, 2, 2]), (3, [3, 3, 2]), (5, [5, 3]), (6, [8]), (8, [8])]
    )
    def test_no_section_is_small(
        self, xml: Path, layers: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The layers in each section, by the number that fills a section."""
        monkeypatch.setattr(sessions, "_SECTION_SIZE", layers * 4 * self.SIDE**2)
        model = ov.Core().read_model(xml)
        ordered = sections.OrderedGraph(model)
        weights = [ordered.weight(index) for index in range(len(ordered.nodes))]
        bounds = pairwise([0, *cuts_of(model), len(weights)])
        assert [sum(weights[begin:end]) // (4 * self.SIDE**2) for begin, end in bounds] == expected

    def test_no_cut_where_many_values_pass(self, xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sessions, "_MOST_PASSING", 1)
        monkeypatch.setattr(sessions, "_SECTION_SIZE", 2 * 4 * self.SIDE**2)
        assert cuts_of(ov.Core().read_model(xml)) == []


def cuts_of(model: ov.Model) -> list[int]:
    return sections.chain_cuts(sections.OrderedGraph(model), sessions._SECTION_SIZE, sessions._MOST_PASSING)

"""The init image's section: the picture, the mask editor, and the borders of outpainting."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.families.outpainting import Borders, lay_out
from vinograph.images import Size, size_of
from vinograph.pipeline import Pipeline
from vinograph.request import arguments_of
from vinograph.web import fragments, viewing
from vinograph.web.controls import Controls, Updates, Values
from vinograph.web.page_context import PageContext, any_of, image_input, on
from vinograph.web.sessions import Picture, Session

_CALL = "generate"
_IMAGE, _MASK, _EXTEND = "image", "mask_image", "extend"
_MASK_SIDE = 768  # pixels of the longer side; a mask needs no more
_SIDES = ("left", "top", "right", "bottom")
_NO_BORDERS = [0.0] * len(_SIDES)
_AWAY = ["away"]  # hidden by a style alone: what Gradio hides loses its properties, such as the editor's picture
_HERE = Path(__file__).parent
_MASK_HINT = "Inpainting: paint a mask over what is to change. Without a mask, the whole image changes."
_BORDERS_HINT = "Outpainting: add pixels at the sides, and draw what is there. The image itself stays."


class InitImageSection:
    """The section's layout, and what its controls do."""

    def __init__(self, context: PageContext) -> None:
        """Lay the section out inside the Gradio block that is open."""
        self._context = context
        with gr.Accordion("Init image", open=False, elem_id="init-image") as self.accordion:
            self.image = image_input("Image", 180)
            with gr.Column(elem_classes=_AWAY) as self._mask_section:
                gr.HTML(fragments.notes(_MASK_HINT), elem_classes="notes")
                self.mask = gr.HTML(
                    "",
                    html_template=(_HERE / "mask_editor.html").read_text(encoding="utf-8"),
                    js_on_load=(_HERE / "mask_editor.js").read_text(encoding="utf-8"),
                    elem_id="mask",
                    picture="",
                    extend=_NO_BORDERS,
                )
            with gr.Column(visible=False, elem_id="extend") as self._borders_section:
                gr.HTML(fragments.notes(_BORDERS_HINT), elem_classes="notes")
                with gr.Row(elem_classes="pair"):
                    self.borders = [
                        gr.Number(label=f"Extend {side}", value=0, minimum=0, precision=0, elem_classes="border")
                        for side in _SIDES
                    ]
                self._borders_note = gr.HTML(elem_classes="notes", elem_id="extend-note")
        self._size = gr.State(None)  # height and width of the init image
        self._defaults_of = gr.State(None)  # the argument whose defaults are set

    @property
    def inputs(self) -> list[Any]:
        """The components that hold a value."""
        return [self.image, self.mask, *self.borders]

    @property
    def outputs(self) -> list[Any]:
        """The components that :meth:`for_model` changes."""
        return [self.accordion, self._mask_section, self._borders_section, *self.borders]

    @property
    def image_outputs(self) -> list[Any]:
        """The components that :meth:`with_image` changes."""
        changed = [self.mask, self._borders_note, self._defaults_of, self._size]
        return list(dict.fromkeys([self.image, *self._controls.outputs, *self.outputs, *changed, self._notes]))

    def wire(self, model: Any, controls: Controls, shown: Any, notes: Any) -> None:
        """Connect the section with the tab's model, its controls, the picture shown, and its notes.

        Whoever sets the image says what goes with it (:meth:`with_image`). An image that changes by
        any other way is the visitor's. ``image.change`` would not do: Gradio tells it again after
        each answer that touches the section.
        """
        self._controls, self._notes = controls, notes
        changed = [self.mask, self._borders_note, self._defaults_of]
        on(
            any_of(self.image.upload, self.image.clear),
            self.change_image,
            [model, self.image, controls.steps, shown],
            [each for each in self.image_outputs if each is not self.image],
        )
        on(
            self.mask.change,
            self.change_mask,
            [model, self.mask, controls.steps, self._defaults_of],
            [*controls.inputs, self._defaults_of],
        )
        for border in self.borders:
            on(
                border.change,
                self.change_borders,
                [model, controls.steps, self._size, self._defaults_of, *self.borders],
                [*controls.inputs, *changed],
            )

    def for_model(self, pipe: Pipeline, *, has_image: bool) -> Updates:
        """Updates that show what the model takes of the section."""
        takes, step = pipe.calls[_CALL].takes, pipe.model.manifest.sizes.size_multiple
        return {
            self.accordion: gr.update(visible=_IMAGE in takes),
            self._mask_section: gr.update(elem_classes=[] if has_image and _MASK in takes else _AWAY),
            self._borders_section: gr.update(visible=has_image and _EXTEND in takes),
            **{border: gr.update(step=step) for border in self.borders},
        }

    def change_image(
        self, model: str, image: str | None, steps: int | None, shown: Picture | None, request: gr.Request
    ) -> Updates:
        """Show the controls that go with the visitor's image, or hide them where it was taken away."""
        updates = self.with_image(self._context.models.get(model), image, steps, request)
        del updates[self.image]
        return {**updates, self._notes: updates[self._notes] + viewing.warnings(shown)}

    def with_image(
        self, pipe: Pipeline, image: str | None, steps: int | None, request: gr.Request, *, settings: bool = True
    ) -> Updates:
        """Updates that show an image in the section, without a mask and borders, or take it away.

        With ``settings`` the controls get the defaults that go with it.
        """
        background, refusal, size = "", "", None
        if image is not None:
            try:
                picture = self._context.read_upload(request, image)
                size = tuple(size_of(picture))
                picture.thumbnail((_MASK_SIDE, _MASK_SIDE))
                background = fragments.data_url(picture)
            except RequestError as error:
                refusal = str(error)
        return {
            self.image: image,
            **(self._controls.with_init_image(pipe, bool(background), steps or 1) if settings else {}),
            **self.for_model(pipe, has_image=bool(background)),
            **{border: gr.update(value=0) for border in self.borders},
            self.mask: gr.update(value="", picture=background, extend=_NO_BORDERS),
            self._borders_note: "",
            self._defaults_of: None,
            self._size: size,
            self._notes: fragments.notes(refusal, kind="error"),
        }

    def change_mask(self, model: str, mask: str, steps: int | None, defaults_of: str | None) -> Updates:
        """Set the defaults that go with a mask, only at its first stroke: later settings stay."""
        if not mask or defaults_of is not None:
            return {self._defaults_of: defaults_of if mask or defaults_of == _EXTEND else None}
        pipe = self._context.models.get(model)
        return {**self._controls.defaults_with(pipe, _MASK, steps or 1), self._defaults_of: _MASK}

    def change_borders(
        self,
        model: str,
        steps: int | None,
        size: Sequence[int] | None,
        defaults_of: str | None,
        *widths: float | None,
    ) -> Updates:
        """Show the borders in the mask editor, and the size that is drawn; the first sets the defaults."""
        pipe = self._context.models.get(model)
        try:
            borders = _borders(pipe, widths)
            layout = (
                None if borders is None or size is None else lay_out(pipe.model.manifest.sizes, Size(*size), borders)
            )
        except RequestError as error:
            return {self._borders_note: fragments.notes(str(error), kind="error")}
        if layout is None:
            kept = None if defaults_of == _EXTEND else defaults_of
            none = {self.mask: gr.update(extend=_NO_BORDERS), self._borders_note: ""}
            return {**none, self._defaults_of: kept}
        sides = (layout.inner.width, layout.inner.height)
        shares = [width / sides[index % 2] for index, width in enumerate(layout.borders)]
        text = f"With these, the image is {layout.size.width}×{layout.size.height}."
        updates = {} if defaults_of else self._controls.defaults_with(pipe, _EXTEND, steps or 1)
        return {
            **updates,
            self.mask: gr.update(extend=shares),
            self._borders_note: fragments.notes(text),
            self._defaults_of: defaults_of or _EXTEND,
        }

    def arguments(self, pipe: Pipeline, values: Values, session: Session, request: gr.Request) -> dict[str, Any]:
        """Write the init image, and its mask where one is painted; the arguments that they are for.

        Empty where there is no init image, or the model takes none.

        Raises:
            RequestError: a picture can't be read, or the borders don't fit.
        """
        takes = pipe.calls[_CALL].takes
        if values[self.image] is None or _IMAGE not in takes:
            return {}
        image = self._context.read_upload(request, values[self.image])
        has_mask = values[self.mask] and _MASK in takes
        mask = _decode_mask(values[self.mask]).resize(image.size, Image.Resampling.NEAREST) if has_mask else None
        borders = _borders(pipe, [values[each] for each in self.borders]) if _EXTEND in takes else None
        found: dict[str, Any] = {_IMAGE: str(session.write(image, name="init.png"))}
        if mask is not None:
            found[_MASK] = str(session.write(mask, name="mask.png"))
        if borders is not None:
            found[_EXTEND] = borders
        return found


def _borders(pipe: Pipeline, widths: Sequence[float | None]) -> Borders | None:
    """The borders that the controls say, checked; None where they say none.

    Raises:
        RequestError: the model draws no such borders.
    """
    if not any(widths):
        return None
    call = pipe.calls[_CALL]
    check = arguments_of(registry.family(pipe.model.manifest.family).request)[_EXTEND].check
    borders: Borders = check("Extend", [int(each or 0) for each in widths], call.limits(pipe.model.manifest.limits, {}))
    return borders


def _decode_mask(mask: str) -> Image.Image:
    """The mask from the mask editor's value: white where it was painted, else black.

    Raises:
        RequestError: it is not a PNG, or larger than the editor's picture.
    """
    try:
        data = base64.b64decode(mask.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > _MASK_SIDE:
                raise RequestError(f"the mask is {picture.width}x{picture.height}; give at most {_MASK_SIDE} a side")
            painted = picture.convert("RGBA")
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("the mask can't be read: it is not a PNG picture") from error
    return painted.getchannel("A").point(lambda value: 255 if value >= 128 else 0)

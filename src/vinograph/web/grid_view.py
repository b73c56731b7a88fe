"""A grid of pictures while it is drawn: its files, its table on the page, and its sheet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from vinograph.a1111 import parameters_text
from vinograph.contact_sheet import contact_sheet
from vinograph.images import save
from vinograph.pipeline import Pipeline
from vinograph.result import Result
from vinograph.web import fragments, viewing
from vinograph.web.grid_axes import MODEL, NO_AXIS, Axis
from vinograph.web.jobs import DrawRequest
from vinograph.web.sessions import address

_GROUP = "grid"
_SHEET = "grid.png"


@dataclass(frozen=True)
class Cell:
    """A place in a grid, and what is drawn there."""

    row: int
    column: int
    request: DrawRequest


@dataclass
class Grid:
    """A grid while it is drawn.

    ``pictures`` are the files that are done, by row and column; ``captions`` are the viewer's.
    """

    columns: Axis
    rows: Axis
    cells: list[Cell]
    prompt: str
    folder: Path
    pictures: dict[tuple[int, int], Path] = dataclasses.field(default_factory=dict)
    captions: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    parameters: str = ""

    def labels(self, row: int, column: int) -> list[str]:
        """What the two axes say of a cell."""
        return [axis.labels[index] for axis, index in ((self.columns, column), (self.rows, row)) if axis is not NO_AXIS]


def by_weights(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with those of one model and its adapters together, so that each is loaded once."""
    weights = [(cell.request.model, tuple(cell.request.adapters.items())) for cell in cells]
    order = list(dict.fromkeys(weights))
    return [cell for each in order for cell, own in zip(cells, weights, strict=True) if own == each]


def keep(grid: Grid, cell: Cell, pipe: Pipeline, result: Result) -> None:
    """Write a cell's picture into the grid's folder, with its own metadata."""
    place = (cell.row, cell.column)
    metadata = result.metadata(0)
    parameters = parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
    file = grid.folder / f"cell-{cell.row + 1}-{cell.column + 1}.png"
    save(result.images[0], file, metadata, parameters)
    prompt = str(cell.request.arguments["prompt"])
    seed = "" if result.seeds is None else f"Seed {result.seeds[0]}"
    facts = [seed, f"{result.images[0].width}×{result.images[0].height}", cell.request.model]
    grid.captions[place] = f"{' · '.join(grid.labels(*place))}\n{prompt}\n{' · '.join(each for each in facts if each)}"
    if not grid.pictures:
        grid.metadata, grid.parameters = metadata, parameters
    grid.pictures[place] = file


def finished(grid: Grid) -> str:
    """The table, and under it the sheet that can be saved; with nothing drawn, an empty frame."""
    if not grid.pictures:
        return fragments.placeholder("Stopped before the first image.")
    axes = {
        name: {"setting": axis.title, "values": [str(each) for each in axis.labels]}
        for name, axis in (("x", grid.columns), ("y", grid.rows))
        if axis is not NO_AXIS
    }
    sheet = contact_sheet(_opened(grid), _labels(grid.columns), _labels(grid.rows), _title(grid))
    file = grid.folder / _SHEET
    save(sheet.picture, file, {**grid.metadata, "grid": axes}, grid.parameters + _a1111(grid))
    scaled = "" if sheet.scale == 1 else f"Images at {sheet.scale * 100:.0f} % of their size"
    size = f"{sheet.picture.width}×{sheet.picture.height}"
    caption = f"The whole grid\n{_title(grid)}"
    return (
        f"{table(grid)}"
        f'<div class="links">{fragments.download(address(file), _SHEET, "Download grid PNG")}</div>'
        f"{fragments.facts(f'{len(grid.pictures)} of {len(grid.cells)} images', size, scaled)}"
        f'<div class="sheet">{viewing.view_button(address(file), "The whole grid", caption, "sheet")}</div>'
    )


def _labels(axis: Axis) -> list[str]:
    return [] if axis is NO_AXIS else axis.labels


def _title(grid: Grid) -> str:
    model = "" if MODEL in (grid.columns.setting, grid.rows.setting) else str(grid.metadata["model"])
    seed = "" if "seed" in (grid.columns.setting, grid.rows.setting) else f"Seed {grid.metadata['request']['seed']}"
    return " · ".join(each for each in (grid.prompt, model, seed) if each)


def _opened(grid: Grid) -> list[list[Image.Image | None]]:
    """The pictures by row and column, None where there is none yet."""
    return [
        [_open(grid.pictures.get((row, column))) for column in range(len(grid.columns.values))]
        for row in range(len(grid.rows.values))
    ]


def _open(file: Path | None) -> Image.Image | None:
    if file is None:
        return None
    with Image.open(file) as picture:
        return picture.convert("RGB")


def _a1111(grid: Grid) -> str:
    """What A1111 appends to the text of a grid."""
    texts = [
        f"{name} Type: {axis.title}, {name} Values: {json.dumps(', '.join(axis.labels), ensure_ascii=False)}"
        for name, axis in (("X", grid.columns), ("Y", grid.rows))
        if axis is not NO_AXIS
    ]
    return f", Script: X/Y/Z plot, {', '.join(texts)}"


def table(grid: Grid) -> str:
    """The pictures in a table, whose headers are the labels."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in _labels(grid.columns))
    across = range(len(grid.columns.values))
    corner = "" if grid.rows is NO_AXIS else "<td></td>"
    rows = "".join(
        f"<tr>{_row_header(grid, row)}{''.join(_place(grid, row, column) for column in across)}</tr>"
        for row in range(len(grid.rows.values))
    )
    thead = f"<thead><tr>{corner}{head}</tr></thead>" if head else ""
    frame = '<div class="grid-table" tabindex="0" role="region" aria-label="Grid">'
    return f"{frame}<table>{thead}<tbody>{rows}</tbody></table></div>"


def _row_header(grid: Grid, row: int) -> str:
    return "" if grid.rows is NO_AXIS else f'<th scope="row">{escape(grid.rows.labels[row])}</th>'


def _place(grid: Grid, row: int, column: int) -> str:
    file = grid.pictures.get((row, column))
    if file is None:
        return '<td><div class="place"></div></td>'
    alt = ", ".join(grid.labels(row, column))
    button = viewing.view_button(address(file), alt, grid.captions[row, column], _GROUP)
    return f'<td><div class="place">{button}</div></td>'

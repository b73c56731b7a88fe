"""Adds learned vectors to the token embeddings of a text encoder's graph.

The table of token embeddings stays as it is, mapped and in any number of bits. Ids beyond it select
from a second table, and what they select replaces what the first table has for id 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.networks.graph import number_nodes

_IDS = "input_ids"
_PASSING = ("Convert", "Reshape", "Squeeze", "Unsqueeze")  # what may lie between the input and the table


class NoTableError(ValueError):
    """The graph has no table of token embeddings of the vectors' width."""


def add_token_vectors(model: ov.Model, vectors: NDArray[np.float32], first_id: int) -> None:
    """Let the ids from ``first_id`` on stand for ``vectors`` [n, width], by changing the graph.

    Every other use of the ids, such as the search for the end of the text, sees 0 in their place.

    Raises:
        NoTableError: no table of this width is looked up with the graph's ``input_ids``.
    """
    ids = next((each for each in model.get_parameters() if _IDS in each.output(0).get_names()), None)
    tables = [] if ids is None else [each for each in _lookups(ids.output(0)) if _width(each) == vectors.shape[1]]
    if ids is None or len(tables) != 1:
        raise NoTableError(f"no table of token embeddings of width {vectors.shape[1]}")
    table = tables[0]
    users, readers = ids.output(0).get_target_inputs(), table.output(0).get_target_inputs()
    kind = ids.output(0).get_element_type()
    first = opset.constant(first_id, kind)
    is_learned = opset.greater_equal(ids.output(0), first)
    known = opset.select(is_learned, opset.constant(0, kind), ids.output(0))
    for user in users:
        user.replace_source_output(known.output(0))
    index = opset.clamp(opset.subtract(ids.output(0), first), 0.0, float(len(vectors) - 1))
    rows = opset.constant(vectors, table.output(0).get_element_type())
    learned = opset.gather(rows, index, opset.constant(0))
    states = opset.select(opset.unsqueeze(is_learned, opset.constant(-1)), learned, table.output(0))
    for reader in readers:
        reader.replace_source_output(states.output(0))
    model.validate_nodes_and_infer_types()
    number_nodes(model)


def _lookups(value: ov.Output) -> Iterator[ov.Node]:
    """The lookups of rows in a table that take ``value`` as their index."""
    for user in value.get_target_inputs():
        node = user.get_node()
        if node.get_type_name() == "Gather" and user.get_index() == 1 and len(node.input(0).get_partial_shape()) == 2:
            yield node
        elif node.get_type_name() in _PASSING:
            yield from _lookups(node.output(0))


def _width(lookup: ov.Node) -> int:
    size = lookup.output(0).get_partial_shape()[-1]
    return int(size.get_length()) if size.is_static else 0

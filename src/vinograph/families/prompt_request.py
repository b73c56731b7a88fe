"""The arguments of families that read weights in prompts."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.arguments import check_prompt_weighting
from vinograph.request import Request, argument_field


@dataclass(frozen=True, kw_only=True)
class PromptRequest(Request):
    """A request whose prompts may have weights."""

    prompt_weighting: str | None = argument_field(
        check_prompt_weighting,
        "whose rules read weights such as (word:1.2) in the prompts; none reads them as text",
        metavar="none|a1111|comfyui",
    )

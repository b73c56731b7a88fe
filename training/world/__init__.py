"""The picture-book world: scenes of six attributes, their pictures and their captions."""

from training.world.caption import caption, caption_and_attributes, caption_of, full_caption, stated_attributes
from training.world.render import render
from training.world.scene import ATTRIBUTES, SPLITS, Scene, sample, split_of
from training.world.sheet import sheet

__all__ = [
    "ATTRIBUTES",
    "SPLITS",
    "Scene",
    "caption",
    "caption_and_attributes",
    "caption_of",
    "full_caption",
    "render",
    "sample",
    "sheet",
    "split_of",
    "stated_attributes",
]

"""The vocabulary of captions: many ways to state each attribute."""

from __future__ import annotations

from typing import Final

SKY: Final[dict[str, tuple[str, ...]]] = {
    "day": (
        "on a sunny day",
        "under a blue sky",
        "on a clear day",
        "in the daytime",
        "in the sunshine",
        "during the day",
        "under a clear blue sky",
        "by day",
        "in bright sunlight",
        "under the sun",
        "at noon",
        "on a bright day",
        "on a bright sunny day",
        "in sunny weather",
        "with a blue sky",
        "on a beautiful summer day",
    ),
    "sunset": (
        "at sunset",
        "in the evening",
        "at dusk",
        "under a sunset sky",
        "in the evening light",
        "as the sun sets",
        "with the sun setting",
        "in the glow of the sunset",
        "under a pink evening sky",
        "in the light of the setting sun",
        "with a sunset",
        "with a beautiful sunset",
        "during sunset",
        "on a warm evening",
    ),
    "night": (
        "at night",
        "under the stars",
        "on a starry night",
        "with a moon",
        "under the moon",
        "by moonlight",
        "under a starry sky",
        "in the moonlight",
        "on a moonlit night",
        "in the night",
        "at midnight",
        "with stars in the sky",
        "on a dark night",
        "under the night sky",
        "at night under the stars",
        "during the night",
        "with the moon and stars",
    ),
    "storm": (
        "in a storm",
        "in the rain",
        "under a stormy sky",
        "in a thunderstorm",
        "on a rainy day",
        "during a storm",
        "on a stormy day",
        "with lightning",
        "with lightning in the sky",
        "under dark clouds",
        "under rain clouds",
        "in stormy weather",
        "during a thunderstorm",
        "while it rains",
        "in bad weather",
        "in the storm",
    ),
}

GROUND: Final[dict[str, tuple[str, ...]]] = {
    "meadow": (
        "on a green hill",
        "in a meadow",
        "in a green meadow",
        "on the grass",
        "on green grass",
        "in a grassy field",
        "in a field of flowers",
        "on a grassy hill",
        "on a meadow",
        "in the countryside",
        "among flowers",
        "in a green field",
        "in the green hills",
        "in the meadow",
        "in the grass",
        "on green hills",
    ),
    "desert": (
        "in the desert",
        "on a sandy dune",
        "on the sand",
        "among sand dunes",
        "in a sandy desert",
        "on a sand dune",
        "on desert sand",
        "in the dunes",
        "in a desert",
        "in the hot desert",
        "on the sand dunes",
        "on a sandy hill",
    ),
    "snow": (
        "on a snowy hill",
        "in the snow",
        "on a snow-covered field",
        "on snowy ground",
        "in a snowy field",
        "in a winter landscape",
        "in winter",
        "on the snow",
        "in deep snow",
        "in a snowy landscape",
        "on a snow-covered hill",
        "on snow",
        "in a field of snow",
        "in the cold snow",
        "on the snowy hills",
    ),
    "sea": (
        "on the sea",
        "at sea",
        "on the water",
        "by the sea",
        "in the ocean",
        "on the ocean",
        "on the waves",
        "on a calm sea",
        "in the sea",
        "on the open sea",
        "in the water",
        "on the blue sea",
    ),
}

ISLAND: Final = ("on a little island", "on a small island in the sea", "on an island", "on a sandy island at sea")
"""More ways to state that a subject which doesn't float is at sea."""

PLACE: Final[dict[str, tuple[str, ...]]] = {
    "left": ("on the left", "to the left", "at the left", "on the left side", "on the left of the picture", "at left"),
    "middle": (
        "in the middle",
        "in the centre",
        "in the center",
        "at the centre",
        "at the center",
        "in the middle of the picture",
    ),
    "right": (
        "on the right",
        "to the right",
        "at the right",
        "on the right side",
        "on the right of the picture",
        "at right",
    ),
}

COUNT: Final[dict[int, tuple[str, ...]]] = {
    1: ("a", "a", "a", "a", "one", "one", "a single"),
    2: ("two", "two", "two", "a pair of", "2"),
    3: ("three", "three", "three", "3", "a group of three"),
}

KIND: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "house": (("house", "houses"), ("house", "houses"), ("cottage", "cottages"), ("home", "homes")),
    "tree": (("tree", "trees"),),
    "boat": (
        ("boat", "boats"),
        ("boat", "boats"),
        ("sailboat", "sailboats"),
        ("sailing boat", "sailing boats"),
        ("ship", "ships"),
    ),
    "car": (("car", "cars"), ("car", "cars"), ("automobile", "automobiles")),
    "lighthouse": (("lighthouse", "lighthouses"),),
    "cat": (("cat", "cats"), ("cat", "cats"), ("kitten", "kittens"), ("kitty", "kitties")),
}

COLOUR: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "red", "red", "bright red"),
    "blue": ("blue", "blue", "blue", "bright blue"),
    "green": ("green", "green", "green", "dark green"),
    "yellow": ("yellow", "yellow", "yellow", "bright yellow"),
    "purple": ("purple", "purple", "purple", "violet"),
    "orange": ("orange", "orange", "orange", "bright orange"),
    "white": ("white", "white", "white", "snow-white"),
    "black": ("black", "black", "black", "coal-black"),
}

ADJECTIVES: Final = ("little", "small", "big", "pretty", "lovely", "cute", "old", "beautiful")

ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "house": ("standing", "built"),
    "tree": ("standing", "growing"),
    "boat": ("resting", "lying"),
    "car": ("parked", "standing"),
    "lighthouse": ("standing", "rising"),
    "cat": ("sitting", "waiting"),
}

SAILING: Final = ("sailing", "floating", "drifting")

PREFIXES: Final = (
    "a picture of",
    "a painting of",
    "an illustration of",
    "a drawing of",
    "an image of",
    "a photo of",
    "picture of",
    "draw",
    "show me",
    "a picture with",
    "a picture book page with",
)

SUFFIXES: Final = ("picture book", "storybook style", "children's book illustration", "drawing", "soft light")

SKY_SCENES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("a sunny day", "a clear day", "a bright summer day"),
    "sunset": ("a sunset", "a warm evening", "a beautiful sunset"),
    "night": ("a starry night", "a moonlit night", "a night"),
    "storm": ("a storm", "a rainy day", "a thunderstorm", "a stormy day"),
}
"""Skies as the topic of a picture, as in "a starry night in the desert with two red cars"."""

GROUND_SCENES: Final[dict[str, tuple[str, ...]]] = {
    "meadow": ("a meadow", "a green field", "a grassy hill", "green hills"),
    "desert": ("a desert", "a sandy desert", "sand dunes"),
    "snow": ("a snowy hill", "a snowy field", "a winter landscape"),
    "sea": ("the sea", "a calm sea", "the ocean"),
}

TAGS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "sky": {
        "day": ("sunny", "sunny day", "blue sky", "daytime"),
        "sunset": ("sunset", "evening", "dusk"),
        "night": ("night", "starry night", "moon", "stars"),
        "storm": ("storm", "rain", "lightning", "stormy"),
    },
    "ground": {
        "meadow": ("meadow", "grass", "green hill"),
        "desert": ("desert", "sand", "dunes"),
        "snow": ("snow", "winter", "snowy hill"),
        "sea": ("sea", "ocean", "water"),
    },
    "place": {
        "left": ("left", "left side"),
        "middle": ("middle", "centre", "center"),
        "right": ("right", "right side"),
    },
}
"""Single words, for captions that people write as lists of tags."""

PHRASES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "sky": {
        "day": (
            "clear blue sky",
            "blue sky",
            "sunny",
            "clear day",
            "bright day",
            "daytime",
            "sunshine",
            "during the day",
            "by day",
            "sunlight",
            "under the sun",
            "noon",
            "summer day",
        ),
        "sunset": ("sunset", "evening", "dusk", "sun sets", "sun setting", "setting sun"),
        "night": ("night", "stars", "starry", "moon", "moonlight", "moonlit", "midnight"),
        "storm": (
            "storm",
            "stormy",
            "rain",
            "rainy",
            "rains",
            "thunderstorm",
            "lightning",
            "dark clouds",
            "bad weather",
        ),
    },
    "ground": {
        "meadow": (
            "green hill",
            "green hills",
            "green meadow",
            "green field",
            "green grass",
            "meadow",
            "grass",
            "grassy",
            "flowers",
            "countryside",
        ),
        "desert": ("desert", "dune", "dunes", "sand", "sandy hill"),
        "snow": ("snow", "snowy", "winter"),
        "sea": ("blue sea", "sandy island", "island", "sea", "water", "ocean", "waves"),
    },
    "place": {"left": ("left",), "middle": ("middle", "centre", "center"), "right": ("right",)},
    "count": {"2": ("two", "2", "pair of"), "3": ("three", "3"), "1": ("one", "single")},
    "colour": {
        "red": ("red",),
        "blue": ("blue",),
        "green": ("green",),
        "yellow": ("yellow",),
        "purple": ("purple", "violet"),
        "orange": ("orange",),
        "white": ("snow-white", "white"),
        "black": ("coal-black", "black"),
    },
}
"""Phrases that state a value; longer ones are found first, and no word is read twice."""

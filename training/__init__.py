"""The picture-book world and the recipes that train the embedded checkpoints."""

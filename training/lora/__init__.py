"""A recipe that teaches a picture-book model a new word, by an adapter (LoRA)."""

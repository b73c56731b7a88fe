"""How adapters of Würstchen name its prior and the prior's text encoder."""

from __future__ import annotations

from vinograph.families.adapters import AdaptedPart, AdapterNames, FoldedPair, with_prefix

ADAPTERS = AdapterNames(
    title="Würstchen",
    parts=(
        AdaptedPart(
            components=("prior", "prior_text"),
            dotted=("prior", "unet", ""),
            flat=("lora_prior_unet", "lora_prior", "lora_unet", "lycoris"),
        ),
        AdaptedPart(
            components=("prior_text_encoder",),
            dotted=("text_encoder", "prior_text_encoder"),
            flat=("lora_prior_te", "lora_te", "lora_te1"),
            aliases=with_prefix("text_model."),
        ),
    ),
    signs=(r"(lora_)?prior[._].+", r".*[._]kv_mapper[._].+", r".*blocks[._]\d+[._]attention[._]to_(q|k|v|out)\b.*"),
    bases=r".*(wuerstchen|würstchen).*",
    folds=(FoldedPair("prior_text", "prior", r"(blocks\.\d+\.)attention\.to_[kv]", "kv_mapper.1"),),
    shifted=r"blocks\.\d+\.channelwise\.4",
)

"""The processor of an HF-native LLaVA: it must count as many positions for a picture as the tower gives features."""

from __future__ import annotations

from typing import Any

from llava.errors import InputError
from llava.fields import Fields, describe_value
from llava.model.failures import explain_loading

EXTRA_POSITIONS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""How many positions a tower has beside its patches."""
LONGEST_SIDE = 4096
"""Pixels of a side that a LLaVA's processor may make; towers take 224 to 1,152, and memory grows with the square."""


def complete_processor(processor: Any, config: Any) -> None:
    """Give a LLaVA processor saved by an old transformers what it lacks of the values it counts picture positions with.

    Files of one version have all three, of another two or none, and the default of the third is CLIP's no more than
    by chance. The tower knows: CLIP's has one position beside its patches, SigLIP's none.
    """
    tower: Any = getattr(config, "vision_config", None)
    if not hasattr(processor, "patch_size") or not hasattr(tower, "patch_size"):
        return
    if processor.patch_size is None:
        processor.patch_size = tower.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = getattr(config, "vision_feature_select_strategy", "default")
    if tower.model_type in EXTRA_POSITIONS:
        processor.num_additional_image_tokens = EXTRA_POSITIONS[tower.model_type]


def check_sides(name: str, image_processor: Any) -> None:
    """Check that no image is made so large that it fills the memory.

    Raises:
        InputError: When a side of `size` or `crop_size` is over `LONGEST_SIDE`.
    """
    for field in ("size", "crop_size"):
        for side, pixels in dict(getattr(image_processor, field, None) or {}).items():
            if pixels is not None and pixels > LONGEST_SIDE:
                raise InputError(
                    f"the processor of model {name} has {field} with {side} {describe_value(pixels)}, over "
                    f"{LONGEST_SIDE} pixels; mend its processor_config.json or preprocessor_config.json"
                )


def check_picture_positions(name: str, processor: Any, config: Any) -> None:
    """Check on one picture that a LLaVA's processor counts as many positions as the tower gives features.

    Otherwise the first picture would end the run. Towers of other families are left alone.

    Raises:
        InputError: When the two differ, the picture comes out in another size than the tower takes, or its numbers are
            not finite.
    """
    from PIL import Image

    tower: Any = getattr(config, "vision_config", None)
    extra = EXTRA_POSITIONS.get(getattr(tower, "model_type", ""))
    if config.model_type != "llava" or extra is None:
        return
    with explain_loading(f"the processor of model {name}", "mend its processor_config.json"):
        check_sides(name, processor.image_processor)
        # From black to white, for a scale can be too large for bright pixels alone.
        picture = Image.linear_gradient("L").resize((48, 40)).convert("RGB")
        probe = processor(text=processor.image_token, images=picture, return_tensors="pt")
        counted = int((probe["input_ids"] == config.image_token_id).sum())
        size = tuple(probe["pixel_values"].shape)
        finite = bool(probe["pixel_values"].isfinite().all())
    fields = Fields(vars(tower), f"config.json of model {name}, 'vision_config'")
    side, patch = fields.integer("image_size", least=1), fields.integer("patch_size", least=1)
    wanted = (1, fields.integer("num_channels", least=1), side, side)
    if size != wanted:
        raise InputError(
            f"the processor of model {name} makes pictures of shape {list(size)}, its vision tower takes "
            f"{list(wanted)}; mend the sizes in its processor_config.json or preprocessor_config.json"
        )
    if not finite:
        raise InputError(
            f"the processor of model {name} makes pictures of numbers that are not finite; mend image_mean, image_std "
            "and rescale_factor in its processor_config.json or preprocessor_config.json"
        )
    dropped = int(getattr(config, "vision_feature_select_strategy", "default") == "default")
    features = (side // patch) ** 2 + extra - dropped
    if counted != features:
        raise InputError(
            f"the processor of model {name} counts {counted} positions for a picture, its vision tower gives "
            f"{features}; mend patch_size and vision_feature_select_strategy in its processor_config.json"
        )

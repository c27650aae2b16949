"""The first stage: every cell of a picture learns whether it shows something, and to spell its token.

No language model runs here. The cell in which a token's middle lies spells it; the finer cells before the last stage
name the single letters, which teaches the early layers what a letter is.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name

from llava.model.embedded.reading_tower import ReadingTower, ReadingTowerConfig, one_hot_spellings
from llava.train.vision.targets import BLANK, LETTERS, Batch

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, which LLaVA's image processor normalises with."""
BLOCK = 128
"""Rows are padded to a multiple of this: a CPU compiles its matrix product anew for every shape that it meets."""
WEIGHTS = {"present": 1.0, "spelling": 2.0, "word": 0.3, "letter": 0.5}
"""Weight of each part of the loss."""


class Reader(nn.Module):
    """The tower and the head that only training needs.

    Args:
        config: Config of the tower.
        lexicon: Spelling of every token, (K, places).
    """

    matrix: torch.Tensor
    """Spelling of every token in one-hot form."""

    def __init__(self, config: ReadingTowerConfig, lexicon: torch.Tensor) -> None:
        super().__init__()
        self.vision_tower = ReadingTower(config)
        self.vision_tower.lexicon.copy_(lexicon)
        self.register_buffer("matrix", one_hot_spellings(lexicon, config.num_letters), persistent=False)
        self.letter_head = nn.Linear(config.cell_size // 2, len(LETTERS) + 1)

    def features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cells (B, N, C) and those of the stage before (B, 4 N, C / 2)."""
        backbone = self.vision_tower.backbone
        hidden, size = backbone.embeddings(normalised(pixels))
        finer = hidden
        for stage in backbone.encoder.stages:
            hidden, before, size = stage(hidden, size[-2:])
            finer = before if stage.downsample is not None else finer
        return hidden, finer

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the loss of the batch by part.

        `present`: whether a cell says anything; `spelling`: cross-entropy of the letters of its token, place by place;
        `word`: cross-entropy of the token among all of the lexicon; `letter`: cross-entropy of single letters.
        """
        tower, says = self.vision_tower, batch.tokens != BLANK
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cells, finer = self.features(batch.pixels)
            letters, presence = self.letter_head(finer), tower.presence(cells)[..., 0]
            said = _padded_to_block(says.flatten().nonzero()[:, 0])
            spelling = tower.spell(cells.flatten(0, 1)[said])
            wanted = batch.tokens.flatten()[said]
            words = spelling.flatten(1) @ self.matrix
        weight = torch.ones(len(LETTERS) + 1)
        weight[0] = 0.2
        return {
            "present": F.binary_cross_entropy_with_logits(presence.float(), says.float()),
            "spelling": F.nll_loss(spelling.flatten(0, 1), tower.lexicon[wanted].long().flatten()),
            "word": F.cross_entropy(words.float(), wanted),
            "letter": F.cross_entropy(letters.float().flatten(0, 1), batch.letters.flatten(), weight=weight),
        }

    @torch.no_grad()
    def read(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the class that each cell says, BLANK for none: (B, N)."""
        tower = self.vision_tower
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cells, _ = self.features(pixels)
        likelihood, present = tower.say(cells.float())
        return torch.where(present, likelihood.argmax(-1), BLANK)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weigh the parts of the loss."""
    return cast(torch.Tensor, sum(weight * losses[part] for part, weight in WEIGHTS.items()))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 pixels as LLaVA's image processor would hand them to the tower."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels.float() / 255 - mean) / std


def _padded_to_block(rows: torch.Tensor) -> torch.Tensor:
    """Repeat the first rows until their number is a multiple of BLOCK."""
    return rows[torch.arange(-(-len(rows) // BLOCK) * BLOCK) % len(rows)]


def fast_modulation(self: Any, hidden_state: torch.Tensor) -> torch.Tensor:
    """Focal modulation with the same result as FocalNet's own, laid out for a CPU.

    Channels stay last, and the depthwise convolutions, whose backward pass in bfloat16 is slow, run in float32.
    """
    channels = hidden_state.shape[-1]
    query, context, gates = torch.split(
        self.projection_in(hidden_state), [channels, channels, self.focal_level + 1], dim=-1
    )
    context = context.permute(0, 3, 1, 2).float()
    gathered: Any = 0
    with torch.autocast("cpu", enabled=False):
        for level in range(self.focal_level):
            layer = self.focal_layers[level][0]
            context = F.gelu(F.conv2d(context, layer.weight, padding=layer.padding, groups=channels))
            gathered = gathered + context.permute(0, 2, 3, 1) * gates[..., level : level + 1]
        everywhere = F.gelu(context.mean((2, 3)))[:, None, None]
        gathered = gathered + everywhere * gates[..., self.focal_level :]
    weight = self.projection_context.weight[:, :, 0, 0]
    return self.projection_out(query * F.linear(gathered, weight, self.projection_context.bias))

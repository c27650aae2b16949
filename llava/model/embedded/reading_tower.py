"""The vision tower of the embedded model: a FocalNet whose cells are put into reading order.

A small frozen language model copies text that stands together; scattered among a hundred picture positions it does
not find the next word. No stock tower can close the gaps, since each keeps one vector for every place. So this one
adds a last step to a stock FocalNet: cells that show something move to the front, in reading order, and spell a token;
the lexicon turns the spelling into weights of tokens. The projector's first layer holds one column for each token, the
language model's own embedding of it, and one for each slot that no cell takes.

Importing this module makes the type known to transformers' `AutoConfig` and `AutoModel`; no remote code is involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from transformers import AutoConfig, AutoModel, FocalNetConfig, FocalNetModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

MODEL_TYPE = "reading_tower"
ROW_WEIGHT = 0.25
"""How much the row counts where two cells say the same token: a line on the border of two rows goes to one of them."""
PRESENT = 0.3
"""Presence from which a cell says its token; a word that no training picture showed seldom reaches a half."""
SURE_TWICE = 1.5
"""Two cells whose presences add up to more than this say two marks, not one between them."""


class ReadingTowerConfig(PreTrainedConfig):
    """Config of a `ReadingTower`.

    Args:
        backbone: Fields of the FocalNetConfig; `image_size` and `embed_dim`, `depths` decide the cells.
        num_slots: Picture positions that the language model sees.
        num_prefix_slots: How many of them, at the front, are the same for every picture: they tell the language
            model that a picture's content follows.
        lexicon_size: Tokens that a cell can say.
        num_places: Places of a token's spelling.
        num_letters: What can stand at a place, with the empty one.
        colour_tokens: Tokens of the lexicon that name a colour.
        form_tokens: Tokens that name a form. With both, there are two sets of slots: a picture of shapes has the second
            (see `shows_shapes`), every other one the first.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        num_slots: int = 49,
        num_prefix_slots: int = 8,
        lexicon_size: int = 1,
        num_places: int = 15,
        num_letters: int = 43,
        colour_tokens: Sequence[int] = (),
        form_tokens: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        self.backbone = dict(backbone or {})
        self.num_slots = num_slots
        self.num_prefix_slots = num_prefix_slots
        self.lexicon_size = lexicon_size
        self.num_places = num_places
        self.num_letters = num_letters
        self.colour_tokens, self.form_tokens = list(colour_tokens), list(form_tokens)
        focalnet = FocalNetConfig(**self.backbone)
        self.image_size = focalnet.image_size
        self.num_channels = focalnet.num_channels
        self.cell_size = focalnet.embed_dim * 2 ** (len(focalnet.depths) - 1)
        # A position holds a weight for every token of the lexicon and for every slot.
        self.hidden_size = lexicon_size + num_slots * self.num_slot_sets
        self.num_hidden_layers = sum(focalnet.depths)
        # LLaVA's processor counts positions as (image_size // patch_size) ** 2.
        self.patch_size = int(self.image_size // num_slots**0.5)
        for derived in ("image_size", "num_channels", "cell_size", "hidden_size", "num_hidden_layers", "patch_size"):
            kwargs.pop(derived, None)
        super().__init__(**kwargs)

    @property
    def num_slot_sets(self) -> int:
        """How many sets of slots there are."""
        return 2 if self.colour_tokens and self.form_tokens else 1


class ReadingTower(PreTrainedModel):
    """FocalNet, a speller, and the cells that show something in reading order.

    Shapes:
        - B: pictures
        - N: cells of the FocalNet's last stage, row by row
        - C: channels of a cell
        - K: tokens of the lexicon
        - S: slots, of which P are the prefix
        - E: sets of slots, 1 or 2
    """

    config_class = ReadingTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["FocalNetStage"]  # noqa: RUF012 - transformers' own form

    def __init__(self, config: ReadingTowerConfig) -> None:
        super().__init__(config)
        self.backbone = FocalNetModel(FocalNetConfig(**config.backbone), add_pooling_layer=False)
        self.presence = nn.Linear(config.cell_size, 1)
        self.speller = nn.Linear(config.cell_size, config.num_places * config.num_letters)
        self.register_buffer("lexicon", torch.zeros(config.lexicon_size, config.num_places, dtype=torch.uint8))
        self.post_init()

    def cells(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features of all cells, row by row: (B, N, C)."""
        return self.backbone(pixel_values, output_hidden_states=True, return_dict=True).hidden_states[-1]

    def spell(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of every letter at every place: (…, places, letters)."""
        letters = self.speller(cells).unflatten(-1, (self.config.num_places, self.config.num_letters))
        return letters.float().log_softmax(dim=-1)

    def look_up(self, spelling: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of every token of the lexicon: (…, places, letters) -> (…, K)."""
        return spelling.flatten(-2) @ one_hot_spellings(self.lexicon, self.config.num_letters)

    def words(self) -> torch.Tensor:
        """Return which tokens have two letters or more, (K,) bool."""
        return (self.lexicon[:, 1:] > 0).sum(dim=1) >= 2

    def say(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-likelihood of every token in every cell (B, N, K), and the cells that say one (B, N).

        Args:
            cells: Features of a square of cells, (B, N, C).
        """
        likelihood = self.look_up(self.spell(cells))
        side = int(cells.shape[1] ** 0.5)
        presence = self.presence(cells)[..., 0].float().sigmoid().unflatten(1, (side, side))
        tokens = likelihood.argmax(dim=-1)
        repeatable = ~self.words()[tokens].unflatten(1, (side, side))
        return likelihood, present_cells(presence, tokens.unflatten(1, (side, side)), repeatable).flatten(1)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Return the slots as the last (and only) hidden state, (B, S, K + E * S).

        Args:
            pixel_values: Normalised pixels, (B, 3, image_size, image_size).
            **kwargs: What LLaVA tells every tower; nothing of it applies here.
        """
        config, kind = self.config, self.presence.weight.dtype
        cells = self.cells(pixel_values.to(kind))
        front, taken = gather_cells(*self.say(cells), config.num_slots - config.num_prefix_slots)
        words = front.softmax(dim=-1).to(kind)
        slots = place_in_slots(words, taken, config.num_slots)
        if config.num_slot_sets == 2:
            drawn = shows_shapes(front.argmax(dim=-1), taken, config.colour_tokens, config.form_tokens)
            slots = choose_set(slots, drawn, config.num_slots)
        return BaseModelOutputWithPooling(last_hidden_state=slots, hidden_states=(slots,))


def one_hot_spellings(lexicon: torch.Tensor, letters: int) -> torch.Tensor:
    """Return the lexicon as a matrix that adds up the letters' scores for each token: (places * letters, K)."""
    return F.one_hot(lexicon.long(), letters).flatten(1).T.float()


def present_cells(presence: torch.Tensor, tokens: torch.Tensor, repeatable: torch.Tensor) -> torch.Tensor:
    """Return which cells say a token, each token once, (B, H, W) bool.

    A token on the border of two cells, say a single line in the middle of a picture, is half in each: both would say
    it, or neither. So neighbours that read the same token add up, and one of them says it: the one in the fuller row,
    else the surer one. What may stand twice side by side, like the dots of a list, does so where both cells are sure.

    Args:
        presence: Probability that the middle of a token lies in the cell, (B, H, W).
        tokens: What the cell would say, (B, H, W).
        repeatable: Cells whose token may stand twice side by side, (B, H, W) bool.

    Example:
        >>> presence = torch.tensor([[[0.4, 0.1], [0.45, 0.1], [0.9, 0.0]]])
        >>> tokens = torch.tensor([[[7, 1], [7, 2], [8, 3]]])
        >>> present_cells(presence, tokens, torch.zeros(1, 3, 2, dtype=torch.bool))[0, :, 0]
        tensor([False,  True,  True])
    """
    weight = presence + ROW_WEIGHT * presence.sum(dim=2, keepdim=True)
    together, beaten = presence.clone(), torch.zeros_like(presence, dtype=torch.bool)
    height, width = presence.shape[1:]
    padded = [F.pad(plane, (1, 1, 1, 1), value=-1) for plane in (presence, weight, tokens)]
    for down, right in itertools.product((0, 1, 2), repeat=2):
        if (down, right) == (1, 1):
            continue
        other, heavier, token = (plane[:, down : down + height, right : right + width] for plane in padded)
        same = (token == tokens) & ~(repeatable & (presence + other > SURE_TWICE))
        together += torch.where(same, other, 0)
        beaten |= same & (heavier >= weight if (down, right) < (1, 1) else heavier > weight)
    return ~beaten & (together > PRESENT)


def gather_cells(cells: torch.Tensor, present: torch.Tensor, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the present cells to the front, in their order.

    Args:
        cells: Features, (B, N, C).
        present: Which cells show something, (B, N) bool.
        room: How many are kept at most.

    Returns:
        Cells (B, R, C) and which of them show something (B, R), R being `room` or N, whichever is less.

    Example:
        >>> cells, taken = gather_cells(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[False, True, True]]), 3)
        >>> cells[0, :, 0], taken[0]
        (tensor([2., 3., 1.]), tensor([ True,  True, False]))
    """
    number = cells.shape[1]
    place = torch.arange(number, device=cells.device)
    order = torch.where(present, place, place + number).argsort(dim=1)[:, :room]
    taken = place[: order.shape[1]] < present.sum(dim=1, keepdim=True)
    return cells.gather(1, order[..., None].expand(-1, -1, cells.shape[2])), taken


def place_in_slots(words: torch.Tensor, taken: torch.Tensor, num_slots: int) -> torch.Tensor:
    """Put words behind the prefix; every slot that none takes stands for itself.

    Args:
        words: Weights over the lexicon, (B, R, K).
        taken: Which of them are words, (B, R) bool.
        num_slots: S; the first S - R are the prefix when R cells are wanted, the rest of the slots follow the words.

    Returns:
        Weights over lexicon and slots, (B, S, K + S).

    Example:
        >>> place_in_slots(torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]), torch.tensor([[True, False]]), 3)[0]
        tensor([[0.0000, 0.0000, 1.0000, 0.0000, 0.0000],
                [0.9000, 0.1000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000, 1.0000]])
    """
    batch, rows, size = words.shape
    slots = torch.eye(num_slots, dtype=words.dtype, device=words.device).expand(batch, -1, -1)
    own = torch.cat([words.new_zeros(batch, num_slots, size), slots], dim=-1)
    said = torch.cat([words, words.new_zeros(batch, rows, num_slots)], dim=-1)
    first = num_slots - rows
    return torch.cat([own[:, :first], torch.where(taken[..., None], said, own[:, first:])], dim=1)


def shows_shapes(
    tokens: torch.Tensor, taken: torch.Tensor, colours: Sequence[int], forms: Sequence[int]
) -> torch.Tensor:
    """Return which pictures say a form behind its colour, or colours and forms alone, (B,) bool.

    Args:
        tokens: What each cell says, (B, R).
        taken: Which of them say something, (B, R) bool.
        colours: Tokens that name a colour.
        forms: Tokens that name a form.

    Example:
        >>> tokens = torch.tensor([[4, 7, 1], [7, 4, 1], [4, 7, 1], [4, 1, 1]])
        >>> taken = torch.tensor([[True] * 3, [True] * 3, [True, False, False], [False] * 3])
        >>> shows_shapes(tokens, taken, [4, 5], [7])
        tensor([ True, False,  True, False])
    """
    is_colour, is_form = (
        taken & torch.isin(tokens, torch.tensor(names, device=tokens.device)) for names in (colours, forms)
    )
    nothing_else = taken.any(dim=1) & (is_colour | is_form | ~taken).all(dim=1)
    return nothing_else | (is_colour[:, :-1] & is_form[:, 1:]).any(dim=1)


def choose_set(slots: torch.Tensor, second: torch.Tensor, num_slots: int) -> torch.Tensor:
    """Let every slot stand for its vector of the first set or of the second.

    Args:
        slots: Weights over lexicon and slots, (B, S, K + S).
        second: Which pictures have the second set, (B,) bool.
        num_slots: S.

    Returns:
        Weights over the lexicon and both sets, (B, S, K + 2 * S).

    Example:
        >>> choose_set(torch.tensor([[[0.5, 1.0]], [[0.5, 1.0]]]), torch.tensor([False, True]), 1)[:, 0]
        tensor([[0.5000, 1.0000, 0.0000],
                [0.5000, 0.0000, 1.0000]])
    """
    words, own = slots[..., :-num_slots], slots[..., -num_slots:]
    chosen = second[:, None, None].to(own.dtype)
    return torch.cat([words, own * (1 - chosen), own * chosen], dim=-1)


AutoConfig.register(MODEL_TYPE, ReadingTowerConfig, exist_ok=True)
AutoModel.register(ReadingTowerConfig, ReadingTower, exist_ok=True)

"""Arguments of the vision tower's training."""

from __future__ import annotations

from dataclasses import dataclass

from llava.data.pictures import MAKERS, Typeface, find_typefaces
from llava.errors import InputError
from llava.train.arguments import option

DEFAULT_TYPEFACES = "Aileron"


@dataclass
class PictureArguments:
    """What the pictures show."""

    common_words: int = option(3000, "Most frequent English words: the vocabulary whose reading is promised.")
    rare_words: int = option(5000, "Words of the ranks below, which teach pieces of words.")
    rare_share: float = option(0.15, "Share of those in what is drawn, in [0, 1).")
    typefaces: str = option(
        DEFAULT_TYPEFACES,
        "Typefaces by file name without .ttf, with commas; named twice, drawn twice as often.",
    )
    font_folders: str = option("", "Folders with typefaces, separated by commas; searched before the system's.")
    mixture: str = option(
        "page:0.38,phrase:0.17,list:0.12,attack:0.10,shapes:0.15,captioned:0.08", "KIND:WEIGHT,… of the pictures."
    )

    def __post_init__(self) -> None:
        """Check the values."""
        if self.common_words < 1 or self.rare_words < 0 or not 0 <= self.rare_share < 1:
            raise InputError("--common-words must be 1 or more, --rare-words 0 or more, --rare-share in [0, 1)")
        self.weights()

    def find_typefaces(self) -> list[Typeface]:
        """Return the typefaces, one as often as it is named.

        Raises:
            InputError: When one is not installed.
        """
        return find_typefaces(self.typefaces.split(","), [folder for folder in self.font_folders.split(",") if folder])

    def weights(self) -> dict[str, float]:
        """Return the mixture as numbers."""
        return parse_mixture(self.mixture, "--mixture")


def parse_mixture(text: str, flag: str) -> dict[str, float]:
    """Return the weight of each kind of picture.

    Args:
        text: `KIND:WEIGHT`, commas between.
        flag: How messages call it.

    Raises:
        InputError: When a weight is no number, or a kind is unknown.

    Example:
        >>> parse_mixture("page:0.5, shapes:1", "--mixture")
        {'page': 0.5, 'shapes': 1.0}
    """
    weights = {}
    for part in text.split(","):
        kind, _, weight = part.partition(":")
        try:
            weights[kind.strip()] = float(weight)
        except ValueError:
            raise InputError(f"{flag} has {part!r}; write KIND:WEIGHT, e.g. page:0.5") from None
    unknown = sorted(set(weights) - set(MAKERS))
    if unknown:
        raise InputError(f"{flag} names {unknown[0]}; kinds are {', '.join(MAKERS)}")
    return weights


@dataclass
class TowerArguments:
    """What is trained."""

    base: str = option("embedded", "Language model: folder, hub id, or `embedded`. It stays as it is.")
    image_size: int = option(160, "Side of the tower's input in pixels.")
    embed_dim: int = option(64, "Width of the FocalNet's first stage; it doubles with each of the others.")
    depths: str = option("0,2,4", "Blocks of each of its stages; the cells are 2 ** (stages + 1) pixels wide.")
    num_slots: int = option(49, "Picture positions that the language model sees; a square number.")
    num_prefix_slots: int = option(8, "Positions at the front that are the same for all pictures.")

    def __post_init__(self) -> None:
        """Check the values."""
        try:
            stages = self.list_depths()
        except ValueError:
            raise InputError(f"--depths is {self.depths!r}; give numbers separated by commas, e.g. 0,2,4") from None
        if self.image_size % 2 ** (len(stages) + 1):
            raise InputError(f"--image-size must be a multiple of {2 ** (len(stages) + 1)} for {len(stages)} stages")
        if round(self.num_slots**0.5) ** 2 != self.num_slots or self.num_prefix_slots >= self.num_slots:
            raise InputError("--num-slots must be a square number, e.g. 49, and more than --num-prefix-slots")

    def list_depths(self) -> list[int]:
        """Return the blocks of each stage."""
        return [int(depth) for depth in self.depths.split(",")]

    @property
    def grid(self) -> int:
        """Cells along a side."""
        return self.image_size // 2 ** (len(self.list_depths()) + 1)

    def backbone(self) -> dict[str, object]:
        """Return the fields of the FocalNetConfig."""
        depths = self.list_depths()
        return {
            "image_size": self.image_size,
            "patch_size": 4,
            "embed_dim": self.embed_dim,
            "use_conv_embed": True,
            "depths": depths,
            "hidden_sizes": [self.embed_dim * 2**stage for stage in range(len(depths))],
            # The last stage looks as far as three cells away in every block, further by its mean over the picture.
            "focal_levels": [*([2] * (len(depths) - 1)), 3],
            "focal_windows": [3] * len(depths),
            "hidden_act": "relu",
            "drop_path_rate": 0.0,
        }


@dataclass
class TowerRunArguments:
    """How the training runs."""

    output_dir: str = option("", "Folder for the weights and checkpoints.")
    read_steps: int = option(2500, "Steps of the first stage, in which cells learn to say their tokens.")
    read_batch_size: int = option(32, "Pictures a step.")
    read_learning_rate: float = option(2e-3, "Peak learning rate of that stage.")
    speak_steps: int = option(300, "Steps of the second stage, through the frozen language model.")
    speak_batch_size: int = option(8, "Questions a step.")
    speak_learning_rate: float = option(3e-3, "Peak learning rate of that stage.")
    checkpoint_steps: int = option(250, "Steps between checkpoints of the first stage.")
    logging_steps: int = option(50, "Steps between log lines.")
    seed: int = option(0, "Seed of weights and pictures.")
    resume: bool = option(False, "Go on from the checkpoint in --output-dir.")

    def __post_init__(self) -> None:
        """Check the values."""
        if min(self.read_steps, self.speak_steps) < 0 or min(self.read_batch_size, self.speak_batch_size) < 1:
            raise InputError("--read-steps and --speak-steps must be 0 or more, batch sizes 1 or more")

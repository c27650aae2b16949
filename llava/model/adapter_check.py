"""Is an adapter whole, and is it its base's? The one check, made wherever an adapter is read.

PEFT warns of a missing tensor and goes on with a fresh one, which changes nothing: a detector half of whose update is
missing flags half of what it should, and looks like a detector.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.failures import describe_error
from llava.model.files.adapter import HEADS, build_lora_config, has_head, open_adapter_weights
from llava.model.files.plain_update import list_shapes, read_plain_update

if TYPE_CHECKING:
    from torch import nn

    from llava.model.files.tensors import SafetensorsFile, TorchFile

PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>A|B|embedding_A|embedding_B)(\.weight)?")
DRAWN = ("A", "embedding_B")
"""Factors that training draws at random; their partners start at zero."""
INPUT_EMBEDDINGS = (".embed_tokens.weight", ".wte.weight", ".embed_in.weight", ".word_embeddings.weight")
"""How the families of language models call their token embeddings."""
RANK_SIDE = {"A": 0, "B": 1, "embedding_A": 0, "embedding_B": 1}
"""Which dimension of a factor is the rank; the other one is the base's."""


def check_adapter(model: nn.Module, folder: str | Path, base: str, *, named_default: bool = False) -> int | None:
    """Check that an adapter is whole, has an effect, and belongs to `model`; the model stays as it is.

    Every module that the config names must have its two factors, of the config's rank and of the base's widths; what
    is trained whole (a head) must be there; no number may be whole or infinite. Header first, values last.

    Args:
        model: The base with its head; it may be on the `meta` device, without weights.
        folder: Adapter folder.
        base: Name of the base, for messages.
        named_default: Whether `lora_A.default.weight` may stand for `lora_A.weight`, as a state dict has it. PEFT does
            not read such names.

    Returns:
        How many rows the adapter's own token embeddings have; None when it fits the model's as they are.

    Raises:
        InputError: Naming the first tensor that is wrong.
    """
    update = read_plain_update(folder, model)
    expected = list_shapes(update, model, PREFIX) if update else None
    if expected is None:
        expected = expected_shapes(model, build_lora_config(folder, with_head=has_head(model)), folder, base)
    opened = open_adapter_weights(folder)
    names = {key: key.replace(".default.weight", ".weight") if named_default else key for key in opened.keys}
    rows = check_tensors(opened, names, expected, model, folder, base)
    check_values(opened, folder)
    return rows


def check_resumable(model: Any, folder: str | Path) -> None:
    """Check that a training checkpoint holds the whole adapter that `model` trains.

    Args:
        model: The PEFT model that goes on training, its adapter in place.
        folder: The checkpoint.

    Raises:
        InputError: Naming the first tensor that is wrong. An update that is still zero may go on.
    """
    from peft import get_peft_model_state_dict

    opened = open_adapter_weights(folder)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    # Under ZeRO-3 a frozen copy may be elsewhere; its shape is not known here.
    expected = {key: tuple(value.shape) for key, value in state.items() if value.numel()}
    names = {key: key for key in opened.keys if key not in state or key in expected}
    check_tensors(opened, names, expected, model.get_base_model(), folder, "that is being trained")
    check_values(opened, folder, may_be_neutral=True)


def expected_shapes(model: nn.Module, config: Any, folder: str | Path, base: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of an adapter, as PEFT itself would make and save it."""
    from peft import get_peft_model, get_peft_model_state_dict

    from llava.model.quiet import quiet_transformers

    try:
        with quiet_transformers():
            # A name of the base, which PEFT would compare with the skeleton's, says nothing here.
            plain = dataclasses.replace(config, base_model_name_or_path=None)
            adapted = get_peft_model(build_skeleton(model), plain)
            state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:  # noqa: BLE001 - names and patterns come from a file and lead anywhere
        raise InputError(
            f"adapter {folder} does not fit base {base}: its config cannot be applied ({describe_error(error)}); "
            "name its own base or copy the adapter again"
        ) from None
    return {key: tuple(value.shape) for key, value in state.items()}


def build_skeleton(model: nn.Module) -> nn.Module:
    """Return a copy of a network without memory for its weights, to be changed at will.

    Quantized layers, whose packed weights have other shapes, are plain ones of the same widths in it.
    """
    import torch

    memo: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and type(module) is not torch.nn.Linear:
            bias = module.bias is not None
            memo[id(module)] = torch.nn.Linear(module.in_features, module.out_features, bias, device="meta")
    for parameter in model.parameters():
        memo[id(parameter)] = torch.nn.Parameter(torch.empty(parameter.shape, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def check_tensors(
    opened: SafetensorsFile | TorchFile,
    names: dict[str, str],
    expected: dict[str, tuple[int, ...]],
    model: nn.Module,
    folder: str | Path,
    base: str,
) -> int | None:
    """Hold an adapter's header against what is expected.

    Args:
        opened: The adapter's file.
        names: Which of the file's tensors to look at, and what PEFT calls each.
        expected: Names and shapes, see `expected_shapes`.
        model: The base, whose token embeddings may be resized.
        folder: Adapter folder, for messages.
        base: Name of the base, for messages.

    Returns:
        How many rows the adapter's own token embeddings have; None when it has the model's number.

    Raises:
        InputError: Naming the first tensor that is unknown, misshapen, not floating or missing.
    """
    embeddings = _embedding_shapes(model)
    rows: dict[str, int] = {}
    for stored, key in names.items():
        shape = opened.shape(stored)
        # Embeddings that have an update of their own are saved from under it.
        plain = key.replace(".base_layer.", ".")
        if plain in embeddings and len(shape) == 2 and shape[1] == embeddings[plain][1] and shape[0] > 0:
            rows[plain] = shape[0]
        elif key not in expected:
            raise _refuse_unknown(key, model, folder, base)
        elif shape != expected[key]:
            raise _refuse_shape(key, shape, expected[key], folder, base)
        if not opened.is_floating(stored):
            raise InputError(
                f"adapter {folder} holds {key.removeprefix(PREFIX)} as {opened.kind(stored)}, not as floating-point "
                "numbers; save it in floating point"
            )
    present = set(names.values())
    if missing := [key for key in expected if key not in present]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        what = "its head " if FACTOR.fullmatch(missing[0]) is None else ""
        raise InputError(
            f"adapter {folder} is incomplete: it lacks {what}{missing[0].removeprefix(PREFIX)}{more}, which its config "
            "and base call for; copy the whole folder again, or name its own base"
        )
    resized = {key: count for key, count in rows.items() if count != embeddings[key][0]}
    if (resized and rows.keys() != embeddings.keys()) or len(set(rows.values())) > 1:
        absent = sorted(embeddings.keys() - rows.keys()) or sorted(rows)
        raise InputError(
            f"adapter {folder} resizes the token embeddings, but not {absent[0].removeprefix(PREFIX)} with them; "
            "save it with both"
        )
    return next(iter(resized.values()), None)


def count_embedding_rows(folder: str | Path) -> int | None:
    """Return how many rows the token embeddings have that an adapter brings; None when it brings none."""
    opened = open_adapter_weights(folder)
    found = [key for key in opened.keys if key.endswith(INPUT_EMBEDDINGS)]
    shape = opened.shape(found[0]) if len(found) == 1 else ()
    return shape[0] if len(shape) == 2 else None


def _embedding_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the shapes of the token embeddings and of the output layer, by their names in an adapter's file."""
    getters = [getattr(model, name, None) for name in ("get_input_embeddings", "get_output_embeddings")]
    weights = [getattr(getter(), "weight", None) for getter in getters if getter is not None]
    shapes = {}
    for name, parameter in model.named_parameters():  # a tied output layer is not listed again
        if any(parameter is weight for weight in weights) and parameter.ndim == 2:
            shapes[f"{PREFIX}{name}"] = (parameter.shape[0], parameter.shape[1])
    return shapes


def _refuse_unknown(key: str, model: nn.Module, folder: str | Path, base: str) -> InputError:
    """Return the error for a tensor that the adapter should not have."""
    name = key.removeprefix(PREFIX)
    factor = FACTOR.fullmatch(name)
    module = factor["module"] if factor else name.rsplit(".", 1)[0]
    if module not in dict(model.named_modules()):
        return InputError(f"adapter {folder} does not fit base {base}: the base has no {module}; name its own base")
    return InputError(
        f"adapter {folder} holds {name}, which its {'config' if factor else 'config, read for this use,'} does not "
        "name; copy the whole folder again"
    )


def _refuse_shape(
    key: str, shape: tuple[int, ...], wanted: tuple[int, ...], folder: str | Path, base: str
) -> InputError:
    """Return the error for a tensor of another shape."""
    name = key.removeprefix(PREFIX)
    factor = FACTOR.fullmatch(name)
    if factor and len(shape) == len(wanted) == 2:
        side = RANK_SIDE[factor["factor"]]
        if shape[1 - side] == wanted[1 - side]:
            return InputError(
                f"adapter {folder}: {name} has rank {shape[side]}, its config says {wanted[side]}; "
                "copy the whole folder again"
            )
        return InputError(
            f"adapter {folder} does not fit base {base}: {factor['module']} is {wanted[1 - side]} wide, the adapter "
            f"wants {shape[1 - side]}; name the base it was trained on"
        )
    return InputError(
        f"adapter {folder} does not fit base {base}: {name} has shape {list(shape)[:8]}, not {list(wanted)}; "
        "name its own base or copy the folder again"
    )


def check_values(opened: SafetensorsFile | TorchFile, folder: str | Path, *, may_be_neutral: bool = False) -> None:
    """Refuse an adapter with a number that is not finite, or one without effect.

    Args:
        opened: The adapter's file.
        folder: Adapter folder, for messages.
        may_be_neutral: Whether an update that is zero everywhere is fine: training begins with one.

    Raises:
        InputError: Naming the first tensor that is wrong.
    """
    import torch

    updates, in_effect = 0, 0
    for key in opened.keys:
        # Eight bits are widened: torch has no finiteness for them.
        tensor, name = opened.tensor(key), key.removeprefix(PREFIX).replace(".default.weight", ".weight")
        tensor = tensor.float() if tensor.itemsize == 1 else tensor
        if not torch.isfinite(tensor).all():
            raise InputError(f"adapter {folder}: {name} holds numbers that are not finite; copy or train it again")
        factor = FACTOR.fullmatch(name)
        is_zero = not tensor.any()
        if factor is None:
            if is_zero and name in [f"{head}.weight" for head in HEADS]:
                raise InputError(f"adapter {folder}: its head {name} is all zero and decides nothing; train it again")
            continue
        if factor["factor"] in DRAWN:
            if is_zero:
                raise InputError(f"adapter {folder}: {name} is all zero and has no effect; copy or train it again")
        else:
            updates += 1
            in_effect += not is_zero
    if updates and not in_effect and not may_be_neutral:
        raise InputError(
            f"adapter {folder} is neutral: lora_B is zero in all {updates} modules, so it changes nothing; "
            "give a trained adapter"
        )

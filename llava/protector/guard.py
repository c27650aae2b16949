"""Guards: what each of them offers, and the one place that makes one from its specification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.identity import Checkpoint, identify_checkpoint
from llava.model.options import LoadOptions, collect_options
from llava.protector.checkpoints import check_checkpoint, identify_part, open_checkpoint
from llava.protector.detector import HarmDetector
from llava.protector.guards.base import Guard, GuardStream, StreamingGuard
from llava.protector.guards.composite import CompositeGuard, combine_keys
from llava.protector.guards.model import GuardModel, check_guard_model
from llava.protector.guards.remote import RemoteGuard
from llava.protector.guards.specs import GuardSpec, parse_spec

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel
    from llava.model.backbone import Backbone

__all__ = [
    "Guard",
    "GuardStream",
    "StreamingGuard",
    "build_guard",
    "check_guard",
    "identify_guard",
    "is_own_detector",
]


def build_guard(
    spec: str | Path,
    options: LoadOptions | None = None,
    *,
    batch_size: int | None = None,
    backbone: MultimodalModel | Backbone | None = None,
    **keywords: Any,
) -> Guard:
    """Make a guard from its specification.

    Args:
        spec: `embedded`, a folder or a hub id of a detector; `guard:PATH` or `guard:FORM@PATH`, another family's guard
            model; `http://HOST:PORT`, a guard on another machine, see `RemoteGuard.connect`; `any(SPEC, SPEC)`,
            `all(SPEC, SPEC)` or `mean(SPEC, SPEC)`, several together. See `parse_spec`.
        options: How it is loaded; None stands for the defaults. Several guards are loaded in the same way.
        batch_size: Texts at a time; None leaves it to the guard.
        backbone: A multimodal model in memory whose weights a detector uses, see `HarmDetector.from_pretrained`; of
            several guards each detector does. Other families' guards have models of their own.
        keywords: Fields of `LoadOptions` by name, such as `device`, `dtype` and `base`; they win over `options`.

    Raises:
        InputError: When the specification is wrong, or a checkpoint cannot be used.

    Example:
        guard = build_guard("any(embedded, guard:meta-llama/Llama-Guard-3-8B)", dtype="bfloat16")
        guard.score(["First, boil the water."], ["How do I cook rice?"])  # one number from 0 to 1
    """
    from llava.model.backbone import as_backbone

    parsed, offered = parse_spec(str(spec)), as_backbone(backbone)
    if offered is not None and offered.required and not names_detector(parsed):
        raise InputError(
            f"detector {parsed.text} has a model of its own; leave --share-backbone out (in Python backbone=)"
        )
    return _build(parsed, collect_options(options, keywords), batch_size, offered)


def _build(spec: GuardSpec, options: LoadOptions, batch_size: int | None, backbone: Backbone | None) -> Guard:
    """Make a guard from its specification, taken apart."""
    size = {} if batch_size is None else {"batch_size": batch_size}
    if spec.members:
        refuse_base(spec, options)
        return CompositeGuard(spec.kind, [_build(member, options, batch_size, backbone) for member in spec.members])
    if spec.kind == "guard":
        return GuardModel.from_pretrained(spec.path, spec.form, options, **size)
    if spec.kind == "remote":
        refuse_base(spec, options)
        return RemoteGuard.connect(spec.path, **size)
    return HarmDetector.from_pretrained(spec.path, options, backbone=backbone, **size)


def check_guard(spec: str | Path, options: LoadOptions | None = None, **keywords: Any) -> None:
    """Check, in seconds and without loading weights, that a guard can be made; see `build_guard` for the arguments.

    Long runs call this before they write anything.

    Raises:
        InputError: As `build_guard`.
    """
    _check(parse_spec(str(spec)), collect_options(options, keywords))


def _check(spec: GuardSpec, options: LoadOptions) -> None:
    """Check a guard's specification, taken apart."""
    if spec.members:
        refuse_base(spec, options)
        for member in spec.members:
            _check(member, options)
    elif spec.kind == "guard":
        check_guard_model(spec.path, spec.form, options)
    elif spec.kind == "remote":
        refuse_base(spec, options)
        RemoteGuard.connect(spec.path)
    else:
        check_checkpoint("detector", spec.path, options.base)


def find_parts(options: Mapping[str, Any]) -> None:
    """Refuse, in milliseconds, a detector or detoxifier that is not there, before a large model is loaded.

    Args:
        options: As of `Protector.from_options`.

    Raises:
        InputError: When a folder is missing or holds something else.
    """
    if is_own_detector(options["detector"]):
        open_checkpoint("detector", options["detector"], options["detector_base"])
    if options["detoxifier"] not in (None, "", "none"):
        open_checkpoint("detoxifier", options["detoxifier"], options["detoxifier_base"])


def identify_guard(spec: str | Path, base: str | None = None) -> Checkpoint:
    """Describe a guard without loading it: where it lies, and a digest of what it is.

    Args:
        spec: See `build_guard`.
        base: Base model of a detector's adapter instead of the one that it names.

    Returns:
        The checkpoint; its key is the part of the guard's `identity` before the `@`.
    """
    return _identify(parse_spec(str(spec)), base)


def _identify(spec: GuardSpec, base: str | None) -> Checkpoint:
    """Describe a guard from its specification, taken apart."""
    if spec.members:
        found = [_identify(member, None) for member in spec.members]
        leaves = tuple(key for member in found for key in (member.members or (member.key,)))
        return Checkpoint(spec.text, spec.text, combine_keys(spec.kind, [member.key for member in found]), leaves)
    if spec.kind == "guard":
        place = identify_checkpoint(spec.text, spec.path)
        return Checkpoint(spec.text, place.path, place.digest)
    if spec.kind == "remote":
        return Checkpoint(spec.text, spec.text, RemoteGuard.connect(spec.path).form.key)
    return identify_part("detector", spec.path, base)


def is_own_detector(spec: str | Path) -> bool:
    """Tell whether a specification names a detector of this package, whose checkpoint has a `protector_config.json`.

    Example:
        >>> is_own_detector("embedded"), is_own_detector("guard:x"), is_own_detector("any(embedded, guard:x)")
        (True, False, False)
    """
    return parse_spec(str(spec)).kind == "detector"


def names_detector(spec: GuardSpec) -> bool:
    """Tell whether a specification names a detector of this package, alone or among several guards."""
    return spec.kind == "detector" or any(map(names_detector, spec.members))


def refuse_base(spec: GuardSpec, options: LoadOptions) -> None:
    """Refuse a base where it would be a guess whose it is, or it is on another machine."""
    if options.base is None:
        return
    if spec.kind == "remote":
        raise InputError(f"detector {spec.text} has its base on its own machine; leave --detector-base out")
    raise InputError(
        f"detector {spec.text} is several guards, and --detector-base names one base; merge the adapter into it "
        "first (mllm-protector merge)"
    )

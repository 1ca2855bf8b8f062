"""Weights from outside: a `.safetensors` file, or a MONAI Bundle (folder or zip), of which nothing is ever run.

Of a bundle two kinds of files are read: `configs/inference.json|yaml` and `configs/metadata.json` for what they say in plain
values (an expression, `$...` or `@...`, is text and stays text), and `models/model.safetensors` or `models/model.pt`. The latter
is loaded with torch's reader for tensors alone, after our own look at the size of everything in it. TorchScript is a program, and
is refused.

References: the MONAI Bundle specification (docs.monai.io, "MONAI Bundle Specification"); `torch.load`, `weights_only`.
"""

import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import cast

import torch

from bedside.core import yaml_tree
from bedside.core.digest import digest_bytes, digest_json
from bedside.core.errors import InputRejected, UnsafeArtefact, UsageError
from bedside.formats.gate import LIMITS, Limits, guarded, receive

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
METADATA = "configs/metadata.json"
WEIGHTS = ("models/model.safetensors", "models/model.pt")
SCRIPTS = ("models/model.ts",)
_MOST_CONFIG_BYTES = 4 << 20
_MOST_ENTRIES = 10_000
_MOST_TENSORS = 100_000
_STATE = ("state_dict", "model_state_dict", "model", "network", "net")
"""Under which keys trainers keep the weights inside a `.pt` file."""


@dataclass(frozen=True, eq=False)
class ForeignWeights:
    """Weights that no training of ours made.

    Attributes:
        kind: "safetensors" or "bundle".
        source: SHA-256 of the received file, or of the table of a bundle's files that were read.
        network: class of the network as the bundle names it; "" where it does not.
        classes: names of the output channels as the bundle states them; empty where it does not.
        tensors: by name.
    """

    kind: str
    source: str
    network: str
    classes: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]


def read_foreign(path: Path, *, limits: Limits = LIMITS) -> ForeignWeights:
    """Read weights from a `.safetensors` file, or from the folder or zip of a MONAI Bundle.

    Raises:
        UsageError: NO_WEIGHTS: there is nothing at the path, or it is nothing of the kind.
        InputRejected: WEIGHTS_DAMAGED, WEIGHTS_NOT_FINITE, BUNDLE_DAMAGED, or a size above the limits.
        UnsafeArtefact: TORCHSCRIPT, or UNSAFE_WEIGHTS: a file that asks for more than tensors.
    """
    if path.is_dir():
        return _bundle(_of_folder(path, limits), limits)
    if not path.is_file():
        raise UsageError("train.from names no model of the store and no file or folder that is there.", code="NO_WEIGHTS")
    data = receive(path, limits=limits)
    if data.startswith(b"PK\3\4") and path.suffix.lower() != ".pt":
        return _bundle(_of_zip(data), limits)
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            "train.from takes a .safetensors file or a MONAI Bundle (folder or .zip); of a file of another kind nobody can say"
            " that it holds weights only.",
            code="NO_WEIGHTS",
        )
    return ForeignWeights("safetensors", digest_bytes(data), "", (), _sound(_safetensors(data), limits))


Member = Callable[[str, int], bytes | None]
"""The bytes of a bundle's file by its name (at most so many), or None where it has none."""


def _of_folder(folder: Path, limits: Limits) -> Member:
    def member(name: str, most: int) -> bytes | None:
        path = folder / name
        if not path.exists():
            return None
        if path.resolve().parent != (folder.resolve() / name).parent:
            raise UnsafeArtefact("The bundle's files are links that lead out of it; copy it whole.", code="TRAVERSAL")
        return receive(path, limits=limits.model_copy(update={"max_file_bytes": most}))

    return member


def _of_zip(data: bytes) -> Member:
    with guarded("BUNDLE_DAMAGED", "The bundle's zip cannot be read; fetch it again."):
        try:
            archive = zipfile.ZipFile(BytesIO(data))
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from None
    names = {entry.orig_filename: entry for entry in archive.infolist()[:_MOST_ENTRIES]}
    tops = {str(PurePosixPath(name).parent.parent) for name in names if name.endswith((*CONFIGS, *WEIGHTS, *SCRIPTS))}
    top = "" if tops in ({"."}, set()) else f"{min(tops)}/"

    def member(name: str, most: int) -> bytes | None:
        entry = names.get(f"{top}{name}")
        if entry is None:
            return None
        if entry.file_size > most or entry.flag_bits & 1:
            raise InputRejected("A file of the bundle is encrypted, or larger than is allowed.", code="FILE_SIZE")
        with guarded("BUNDLE_DAMAGED", "The bundle's zip cannot be read to its end; fetch it again."):
            try:
                with archive.open(entry) as stream:
                    return stream.read(most)
            except zipfile.BadZipFile as error:
                raise ValueError(str(error)) from None

    return member


def _bundle(member: Member, limits: Limits) -> ForeignWeights:
    texts = {name: data for name in CONFIGS if (data := member(name, _MOST_CONFIG_BYTES)) is not None}
    if not texts:
        raise UsageError("This is no MONAI Bundle: it has no configs/inference.json or .yaml.", code="NO_WEIGHTS")
    name, config = next(iter(texts.items()))
    metadata = member(METADATA, _MOST_CONFIG_BYTES)
    for weights in WEIGHTS:
        data = member(weights, limits.max_file_bytes)
        if data is not None:
            break
    else:
        if any(member(script, limits.max_file_bytes) is not None for script in SCRIPTS):
            raise _torchscript()
        raise UsageError(f"The bundle holds none of {', '.join(WEIGHTS)}; download its weights.", code="NO_WEIGHTS")
    tensors = _safetensors(data) if weights.endswith(".safetensors") else _pt(data, limits)
    read = {name: config, weights: data} | ({METADATA: metadata} if metadata is not None else {})
    return ForeignWeights(
        kind="bundle",
        source=digest_json({path: digest_bytes(content) for path, content in read.items()}),
        network=_network_of(_tree(name, config)),
        classes=_classes_of(_tree(METADATA, metadata)) if metadata is not None else (),
        tensors=_sound(tensors, limits),
    )


def _tree(name: str, data: bytes) -> object:
    """The plain values of a configuration; nothing in it is an expression here."""
    sentence = "A configuration file of the bundle cannot be read; fetch it again."
    with guarded("BUNDLE_DAMAGED", sentence):
        text = data.decode()
        if name.endswith(".json"):
            return cast("object", json.loads(text))
        tree = yaml_tree.parse(text, "inference.yaml")
    if tree.problems:
        raise InputRejected(sentence, code="BUNDLE_DAMAGED")
    return tree.value


def _within(tree: object, *keys: str) -> object:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _network_of(tree: object) -> str:
    for key in ("network_def", "network"):
        found = _within(tree, key, "_target_")
        if isinstance(found, str) and not found.startswith(("$", "@")):
            return found.rpartition(".")[2][:64]
    return ""


def _classes_of(tree: object) -> tuple[str, ...]:
    table = _within(tree, "network_data_format", "outputs", "pred", "channel_def")
    if not isinstance(table, dict) or sorted(table) != sorted(str(number) for number in range(len(table))):
        return ()
    return tuple(str(table[str(number)])[:64] for number in range(len(table)))


def _safetensors(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with guarded("WEIGHTS_DAMAGED", "The safetensors file cannot be read; fetch it again."):
            return cast("dict[str, torch.Tensor]", load(data))
    except SafetensorError:
        raise InputRejected("The safetensors file cannot be read; fetch it again.", code="WEIGHTS_DAMAGED") from None


def _pt(data: bytes, limits: Limits) -> dict[str, torch.Tensor]:
    """The state of a network in a `.pt` file, by torch's reader that makes tensors and plain values only."""
    _check_container(data, limits)
    refusal = UnsafeArtefact(
        "The bundle's model.pt asks for more than tensors, which could run code; ask for its weights as safetensors.",
        code="UNSAFE_WEIGHTS",
    )
    foreign = sys.modules["pickle"].UnpicklingError  # torch's reader says so of everything that it does not allow
    try:
        with guarded("WEIGHTS_DAMAGED", "The bundle's model.pt cannot be read; fetch it again."):
            found: object = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except foreign:
        raise refusal from None
    for key in _STATE:
        inner = found.get(key) if isinstance(found, dict) else None
        found = inner if isinstance(inner, dict) else found
    if not isinstance(found, dict) or not found:
        raise InputRejected("The bundle's model.pt holds no table of weights.", code="WEIGHTS_DAMAGED")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if len(tensors) < len(found):
        raise InputRejected("The bundle's model.pt holds more than a table of weights.", code="WEIGHTS_DAMAGED")
    return tensors


def _check_container(data: bytes, limits: Limits) -> None:
    """Look at the zip that torch writes: what it unpacks to, and that no program is in it."""
    damaged = "The bundle's model.pt is not what torch.save writes since version 1.6; save it again, best as safetensors."
    with guarded("WEIGHTS_DAMAGED", damaged):
        try:
            entries = zipfile.ZipFile(BytesIO(data)).infolist()
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from None
    if sum(entry.file_size for entry in entries) > limits.max_file_bytes or len(entries) > _MOST_TENSORS:
        raise InputRejected("The bundle's model.pt unpacks to more than is allowed.", code="FILE_SIZE")
    if any("/code/" in f"/{entry.filename}" or entry.filename.endswith("constants.pkl") for entry in entries):
        raise _torchscript()


def _torchscript() -> UnsafeArtefact:
    return UnsafeArtefact(
        "The bundle holds its weights as TorchScript, which is a program; ask for them as safetensors or model.pt.",
        code="TORCHSCRIPT",
    )


def _sound(tensors: Mapping[str, torch.Tensor], limits: Limits) -> dict[str, torch.Tensor]:
    """The tensors, each dense, finite and of its own, after a look at how much they ask for together.

    A view can claim any size with no bytes behind it.
    """
    if any(value.layout != torch.strided or value.is_meta for value in tensors.values()):
        raise InputRejected("A weight is no dense tensor.", code="WEIGHTS_DAMAGED")
    if sum(value.numel() * value.element_size() for value in tensors.values()) > limits.max_file_bytes:
        raise InputRejected("The weights ask for more memory than is allowed.", code="FILE_SIZE")
    if not all(bool(value.isfinite().all()) for value in tensors.values() if value.is_floating_point()):
        raise InputRejected("A weight is NaN or infinite; fetch the file again, or train it again.", code="WEIGHTS_NOT_FINITE")
    return {name: value.detach().clone().contiguous() for name, value in sorted(tensors.items())}

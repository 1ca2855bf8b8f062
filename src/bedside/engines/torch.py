"""PyTorch in eager mode: the reference that every other engine is compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import Field

from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.model import Model
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import FloatArray, Forward, Network

if TYPE_CHECKING:
    import torch


class TorchEngine(Part):
    """Runs safetensors weights on the processor or on an accelerator.

    Attributes:
        device: "cpu", or "cuda": the first accelerator that this process may use.
        precision: "fp32", or "bf16" autocast with channels-last memory, which is 2 to 10 times faster where the processor has
            bfloat16 instructions; weights and output stay float32. On an accelerator "fp32" is torch's, whose convolutions take
            TF32 where there is some.
        threads: processor threads; None: torch's own choice (the processors this process may run on, or OMP_NUM_THREADS).
    """

    kind: ClassVar[str] = "engine"
    part_name: ClassVar[Literal["torch"]] = "torch"
    model_format: ClassVar[Literal["safetensors"]] = "safetensors"

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: Annotated[int, Field(gt=0)] | None = None

    def forward(self, model: Model) -> Forward:
        """Build the network, load its weights and return the function that computes one batch of windows.

        Raises:
            UsageError: the model is not safetensors; DEVICE: there is no accelerator.
            IntegrityError: the weights do not fit the network that the model names.
            InputRejected: a weight is NaN or infinite.
        """
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("The engine wants an accelerator (device: cuda), and torch sees none here; take cpu.", code="DEVICE")
        net, device = load_network(model).to(self.device), torch.device(self.device)
        reduced = self.precision == "bf16"
        layout = torch.channels_last_3d if reduced else torch.contiguous_format
        net = net.to(memory_format=layout)  # type: ignore[call-overload]  # the stubs lack torch's own keyword

        def compute(windows: FloatArray) -> FloatArray:
            with _threads(self.threads), torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                tensor = torch.from_numpy(windows).to(device).to(memory_format=layout)
                output: torch.Tensor = net(tensor)
                return cast("FloatArray", output.float().contiguous().cpu().numpy())

        return compute


def load_network(model: Model) -> "torch.nn.Module":
    """Return the model's network in evaluation mode with its weights, every name and shape checked.

    Raises:
        UsageError: the model is not safetensors.
        IntegrityError: the weights do not fit the network that the model names.
        InputRejected: a weight is NaN or infinite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    spec = model.spec
    if spec.format != "safetensors":
        raise UsageError(
            f"The torch engine runs safetensors weights, not {spec.format}; open this model with the engine it names.",
            code="ENGINE_FORMAT",
        )
    part = registry("network").resolve(str(spec.network.get("name")))
    network = cast("Network", part.model_validate({key: value for key, value in spec.network.items() if key != "name"}))
    net = network.build(spec.in_channels, spec.out_channels)
    try:
        weights = load_file(model.weights)
        net.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(
            f"The weights of {model.digest[:12]} do not fit the network it names; store the model again.", code="WEIGHTS"
        ) from error
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise InputRejected(f"A weight of {model.digest[:12]} is NaN or infinite; train it again.", code="WEIGHTS_NOT_FINITE")
    return net.eval()


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """Use that many threads inside: torch knows only one number for the whole process."""
    import torch

    before = torch.get_num_threads()
    if wanted is None or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)

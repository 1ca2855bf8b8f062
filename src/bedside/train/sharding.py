"""Weights that the processes of a training divide among them (`site.strategy: fsdp`): torch's `fully_shard`.

Each process keeps one part of every weight, of its average and of the optimizer's moments, and the whole only while a pass needs
it. What is written, scored or sent is brought together first, which all processes do at the same time and in the same order.
Source: FullyShardedDataParallel (Zhao et al. 2023, PyTorch FSDP), in torch's second form.
"""

import copy
from collections.abc import Mapping

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class Sharded:
    """A network and its average whose weights are those of the first process, sharded over so many, from now on and in place.

    Args:
        net: learns; average: does not.
        device: where both live; count: of processes.
    """

    def __init__(self, net: nn.Module, average: nn.Module, *, device: torch.device, count: int) -> None:
        self._form = copy.deepcopy(average).to("meta")
        self._net, self._average = net, average
        for value in (*net.state_dict().values(), *average.state_dict().values()):
            distributed.broadcast(value, src=0)  # each process made weights of its own
        mesh = init_device_mesh(device.type, (count,))
        for each in (net, average):
            fully_shard(each, mesh=mesh, reshard_after_forward=False)

    def before_pass(self, *, last: bool) -> None:
        """Bring gradients together in the last backward pass of a step only, and keep the weights whole until then.

        So a step has one exchange of weights and one of gradients, however many passes a process does in it.
        """
        assert isinstance(self._net, FSDPModule)
        self._net.set_requires_gradient_sync(last)
        self._net.set_reshard_after_backward(last)
        self._net.set_is_last_backward(last)

    def averaged(self) -> nn.Module:
        """A plain network with the whole averages; all processes must call this or `full_tensor` of the same tensors."""
        values = {name: full_tensor(value) for name, value in self._average.state_dict().items()}
        net = copy.deepcopy(self._form).to_empty(device=next(iter(values.values())).device)
        net.load_state_dict(values)
        return net.eval()


def full_tensor(value: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all processes, which must all ask for it; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local_shard(value: torch.Tensor) -> torch.Tensor:
    """The part that this process keeps, in place; of a tensor that is not divided, all of it."""
    return value.to_local() if isinstance(value, DTensor) else value


def shard_like(form: DTensor, value: torch.Tensor) -> DTensor:
    """The part of a whole tensor that belongs here, divided as `form` is; every process has the whole one."""
    return distribute_tensor(value.to(form.device), form.device_mesh, form.placements, src_data_rank=None)


@torch.no_grad()
def load_full_state(net: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take up whole weights.

    Raises:
        RuntimeError: names or shapes are of another network.
    """
    state = net.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in tensors.items()}:
        raise RuntimeError("names or shapes of weights are of another network")
    for name, value in state.items():
        local_shard(value).copy_(local_shard(shard_like(value, tensors[name])) if isinstance(value, DTensor) else tensors[name])

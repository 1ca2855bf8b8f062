"""The two base types: `Record` touches disk or wire, `Part` is a swappable piece whose YAML is its constructor."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen pydantic model: unknown keys are refused, NaN is not a number we accept in settings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="strings", protected_namespaces=()
    )


class Part(Record):
    """A task, network, engine or gate: a few typed settings and one or two methods.

    Importing the module of a part must not import torch or MONAI: heavy imports belong inside its methods, so that a
    configuration can be checked in milliseconds.
    """

    kind: ClassVar[str]
    part_name: ClassVar[str]

    def settings(self) -> dict[str, object]:
        """Return the part as it stands in YAML: its name, then its settings."""
        return {"name": self.part_name, **self.model_dump(mode="json")}

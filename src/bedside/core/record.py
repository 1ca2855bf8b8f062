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


def inlined(schema: dict[str, object]) -> dict[str, object]:
    """The schema with its own definitions in the places that name them, since it becomes a part of a larger one."""
    definitions = schema.pop("$defs", {})

    def filled(node: object) -> object:
        if isinstance(node, list):
            return [filled(item) for item in node]
        if not isinstance(node, dict):
            return node
        named = node.get("$ref")
        if isinstance(named, str) and isinstance(definitions, dict):
            rest = {key: item for key, item in node.items() if key != "$ref"}
            return filled({**definitions[named.removeprefix("#/$defs/")], **rest})
        return {key: filled(item) for key, item in node.items()}

    return {key: filled(item) for key, item in schema.items()}

"""The names of a whole received folder, and its files under numbers: of 100,000 files only the names are held, in order."""

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload


class Names(Mapping[str, Path]):
    """Names below one folder, sorted, to paths that are made when they are asked for.

    Args:
        root: the folder.
        names: relative to it, in any order; sorted here.
    """

    __slots__ = ("names", "prefix", "root")

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self.names = sorted(names)
        self.prefix = os.fspath(root / "x")[:-1]

    def __getitem__(self, name: str) -> Path:
        if self.place(name) is None:
            raise KeyError(name)
        return self.root / name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Names and paths as text, for who asks the system about each of them."""
        return ((name, self.prefix + name) for name in self.names)

    def place(self, name: str) -> int | None:
        """Where a name stands among the others, or None."""
        at = bisect_left(self.names, name)
        return at if at < len(self.names) and self.names[at] == name else None

    def place_of(self, path: Path) -> int | None:
        """The same of a path."""
        text = os.fspath(path)
        return self.place(text[len(self.prefix) :]) if text.startswith(self.prefix) else None

    def name_of(self, path: Path) -> str | None:
        """The name of a path, or None of one that is not here."""
        place = self.place_of(path)
        return None if place is None else self.names[place]


class Files(Mapping[str, Path]):
    """All received files, "images/" or "labels/" and their name, each under a number: its place in this order."""

    __slots__ = ("folders",)

    def __init__(self, images: Names, labels: Names) -> None:
        self.folders = (("images/", images), ("labels/", labels))

    def __getitem__(self, name: str) -> Path:
        for start, names in self.folders:
            if name.startswith(start):
                return names[name[len(start) :]]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for start, names in self.folders:
            yield from (start + name for name in names)

    def __len__(self) -> int:
        return sum(len(names) for _, names in self.folders)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Names and paths as text."""
        return ((start + name, text) for start, names in self.folders for name, text in names.texts())

    def path(self, number: int) -> Path:
        """The file under a number."""
        images, labels = self.folders[0][1], self.folders[1][1]
        names, at = (images, number) if number < len(images) else (labels, number - len(images))
        return names.root / names.names[at]

    def name(self, number: int) -> str:
        """Its name below the images or the labels folder."""
        images, labels = self.folders[0][1], self.folders[1][1]
        return images.names[number] if number < len(images) else labels.names[number - len(images)]

    def number(self, path: Path) -> int:
        """The number of a received file."""
        first = 0
        for _, names in self.folders:
            place = names.place_of(path)
            if place is not None:
                return first + place
            first += len(names)
        raise KeyError("no received file")

    def all_of(self, paths: Sequence[Path]) -> "Paths":
        """The same files, held as numbers."""
        return paths if isinstance(paths, Paths) else Paths(self, array("I", map(self.number, paths)))


class Paths(Sequence[Path]):
    """Some of the files, four bytes each."""

    __slots__ = ("files", "numbers")

    def __init__(self, files: Files, numbers: "array[int]") -> None:
        self.files = files
        self.numbers = numbers

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> "Paths": ...
    def __getitem__(self, place: int | slice) -> "Path | Paths":
        if isinstance(place, slice):
            return Paths(self.files, self.numbers[place])
        return self.files.path(self.numbers[place])

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Path]:
        return map(self.files.path, self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

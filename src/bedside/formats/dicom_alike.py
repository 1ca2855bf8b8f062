"""What is worked out once for all files that say the same: the slices of a series differ in a handful of elements only.

A function of a file's elements is run on a view that notes every element it looks at. The next file that says exactly the same
in each of those gets the same answer, without the function being run again. Nothing has to be listed, so nothing can be
forgotten: what a function has not looked at cannot have changed its answer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from bedside.formats.dicom_elements import PIXEL_DATA, Element, Elements

_Answer = TypeVar("_Answer")
_Asked = TypeVar("_Asked")
_MOST_BYTES = 1 << 16
"""Of noted values in all; a file with more is worked out each time."""
_MOST_REMEMBERED = 4

_Said = tuple[str, bytes | None] | None
"""VR and value of an element; of pixel data only the VR; None where there is no such element."""


class Alike(Generic[_Asked, _Answer]):
    """A function of elements, and of how it was asked, that remembers its last answers.

    Args:
        function: must depend on nothing but its arguments, and change neither.
    """

    def __init__(self, function: Callable[[Elements, _Asked], _Answer]) -> None:
        self._function = function
        self._known: tuple[_Known[_Asked, _Answer], ...] = ()

    def __call__(self, elements: Elements, asked: _Asked) -> _Answer:
        """The function's answer; what it raises is raised and never remembered."""
        if elements.shared or elements.frames:
            return self._function(elements, asked)
        for known in self._known:
            if known.fits(elements, asked):
                return known.answer
        noted = _Noted(elements)
        answer = self._function(noted, asked)
        if noted.bytes_noted <= _MOST_BYTES:
            one = _Known(_outside(elements), asked, tuple(noted.said.items()), tuple(noted.areas.items()), answer)
            self._known = (one, *self._known[: _MOST_REMEMBERED - 1])
        return answer


@dataclass(frozen=True, repr=False)
class _Known(Generic[_Asked, _Answer]):
    """An answer, and all that it was worked out of. It has no repr: it holds values of headers."""

    outside: tuple[str, str, str, str]
    asked: _Asked
    said: tuple[tuple[int, _Said], ...]
    areas: tuple[tuple[int, bytes], ...]
    answer: _Answer

    def fits(self, elements: Elements, asked: _Asked) -> bool:
        """Whether the function would see the same again."""
        if self.outside != _outside(elements) or self.asked != asked:
            return False
        table, data = elements.table, elements.data
        for tag, said in self.said:
            place = table.get(tag)
            if place is None or said is None:
                if place is not None or said is not None:
                    return False
            elif place.vr != said[0] or (said[1] is not None and data[place.start : place.end] != said[1]):
                return False
        return all(elements.below(tag) == area for tag, area in self.areas)


def _outside(elements: Elements) -> tuple[str, str, str, str]:
    """What a function may look at beside the elements."""
    return elements.syntax, elements.sop_class, elements.order, elements.preamble


class _Noted(Elements):
    """The same elements, noting which of them are looked at. Where a value lies in the file is not told."""

    def __init__(self, elements: Elements) -> None:
        syntax, sop_class, order, preamble = _outside(elements)
        super().__init__(syntax=syntax, sop_class=sop_class, order=order, preamble=preamble)
        self._elements = elements
        self.said: dict[int, _Said] = {}
        self.areas: dict[int, bytes] = {}
        self.bytes_noted = 0
        self.table = _NotedTable(self)

    def raw(self, tag: int) -> bytes:
        """As of the file; noted."""
        said = self.note(tag)
        if tag == PIXEL_DATA:
            raise _unnoted()
        return (said and said[1]) or b""

    def below(self, tag: int) -> bytes:
        """As of the file; noted."""
        if tag not in self.areas:
            self.areas[tag] = self._elements.below(tag)
            self.bytes_noted += len(self.areas[tag])
        return self.areas[tag]

    def note(self, tag: int) -> _Said:
        """What an element says; noted."""
        if tag not in self.said:
            place = self._elements.table.get(tag)
            value = None if place is None or tag == PIXEL_DATA else self._elements.raw(tag)
            self.said[tag] = None if place is None else (place.vr, value)
            self.bytes_noted += len(value or b"")
        return self.said[tag]


class _NotedTable(Mapping[int, Element]):
    """Which elements there are; the places are those of nothing, and only their lengths are true."""

    def __init__(self, noted: _Noted) -> None:
        self._noted = noted

    def __getitem__(self, tag: int) -> Element:
        said = self._noted.note(tag)
        if said is None:
            raise KeyError(tag)
        return Element(said[0], 0, len(said[1] or b""))

    def __iter__(self) -> Iterator[int]:
        raise _unnoted()

    def __len__(self) -> NoReturn:
        raise _unnoted()


def _unnoted() -> AssertionError:
    """A defect of ours, which no gate takes for a fault of the file: what was not noted may be other in the next file."""
    return AssertionError("a function that is remembered looks at elements one by one, and at no pixels")

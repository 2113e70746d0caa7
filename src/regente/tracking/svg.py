"""Charts as SVG text: a figure takes 4 ms, where matplotlib takes 160 ms and its import 400 ms of CPU time."""

import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

import numpy as np

from regente.jobs.streams import plain

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
GREY = "#666"
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 32, 46  # pixels around the axes of a panel, for its labels
MOST = 1000  # points of a line that are drawn; of more, the lowest and the highest of each stretch
Point = tuple[float, float]


class Drawing:
    """An SVG image of this size in pixels, on white."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, words: object, *, anchor: str = "middle", size: int = 11, more: str = ""
    ) -> None:
        """Write words at a place: `anchor` is start, middle or end."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        self.parts.append(f"<text {place} {more}>{clean(str(words))}</text>")

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>')

    def line(self, points: Iterable[Point], colour: str, *, width: float = 1.5, dashes: str = "") -> None:
        """Join points, in pixels."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-width="{width}"'
        style += f' stroke-dasharray="{dashes}"' if dashes else ""
        self.parts.append(f'<polyline points="{places}" {style}/>')

    def dots(
        self, points: Iterable[Point], colour: str, *, radius: float = 2.0, opacity: float = 1.0
    ) -> None:
        """Mark points, in pixels."""
        circles = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in points]
        self.parts.append(f'<g fill="{colour}" fill-opacity="{opacity}">{"".join(circles)}</g>')

    def image(self, pixels: np.ndarray, x: float, y: float, width: float, height: float) -> None:
        """Put an image, uint8 [h, w] or [h, w, 3], into a rectangle; pixels stay sharp."""
        from PIL import Image

        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        style = 'preserveAspectRatio="none" style="image-rendering: pixelated"'
        self.parts.append(
            f'<image {place} {style} href="data:image/png;base64,{b64encode(file.getvalue()).decode()}"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}" viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" fill="#222">'
        return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *self.parts, "</svg>\n"])


class Panel:
    """Axes with ticks in a rectangle of a drawing, in pixels; its methods take values of the data.

    `x`, `y`: the lowest and the highest value of each axis. `logarithmic`: of the x axis.
    """

    def __init__(
        self,
        drawing: Drawing,
        place: tuple[float, float, float, float],
        x: Point,
        y: Point,
        *,
        title: str = "",
        labels: tuple[str, str] = ("", ""),
        logarithmic: bool = False,
    ) -> None:
        self.drawing, self.logarithmic = drawing, logarithmic
        left, top, width, height = place
        self.left, self.top = left + LEFT, top + TOP
        self.width, self.height = width - LEFT - RIGHT, height - TOP - BOTTOM
        self.x, self.y = _widened(*(map(math.log10, x) if logarithmic else x)), _widened(*y)
        self.legends = 0
        self._axes()
        middle = self.left + self.width / 2
        drawing.text(middle, top + 20, title, size=13)
        drawing.text(middle, top + height - 10, labels[0])
        turned = f'transform="rotate(-90 {left + 14:.1f} {self.top + self.height / 2:.1f})"'
        drawing.text(left + 14, self.top + self.height / 2, labels[1], more=turned)

    def at(self, x: float, y: float) -> Point:
        """The pixel of a value."""
        x = math.log10(x) if self.logarithmic else x
        return (
            self.left + self.width * (x - self.x[0]) / (self.x[1] - self.x[0]),
            self.top + self.height * (1 - (y - self.y[0]) / (self.y[1] - self.y[0])),
        )

    def line(self, points: Sequence[Point], colour: str, *, dots: bool = False, dashes: str = "") -> None:
        """Join values, with a dot on each if there are few."""
        places = [self.at(*point) for point in thinned(points)]
        self.drawing.line(places, colour, dashes=dashes)
        if dots:
            self.drawing.dots(places, colour)

    def legend(self, words: str, colour: str, *, dashes: str = "") -> None:
        """Say what a line is, at the top right; below those before."""
        y, x = self.top + 12 + 15 * self.legends, self.left + self.width
        self.drawing.line([(x - 20, y - 4), (x, y - 4)], colour, width=2, dashes=dashes)
        self.drawing.text(x - 25, y, words, anchor="end")
        self.legends += 1

    def _axes(self) -> None:
        bottom, right = self.top + self.height, self.left + self.width
        for value in ticks(*self.x):
            x = self.left + self.width * (value - self.x[0]) / (self.x[1] - self.x[0])
            self.drawing.line([(x, self.top), (x, bottom + 4)], "#e5e5e5", width=1)
            self.drawing.text(x, bottom + 17, number(10**value if self.logarithmic else value))
        for value in ticks(*self.y):
            y = self.top + self.height * (1 - (value - self.y[0]) / (self.y[1] - self.y[0]))
            self.drawing.line([(self.left - 4, y), (right, y)], "#e5e5e5", width=1)
            self.drawing.text(self.left - 8, y + 4, number(value), anchor="end")
        self.drawing.line([(self.left, self.top), (self.left, bottom), (right, bottom)], GREY, width=1)


def _widened(low: float, high: float) -> Point:
    """An interval with a length, and a margin."""
    margin = 0.04 * (high - low) or abs(high) or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in an interval: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def clean(words: str) -> str:
    """Text of a run for HTML and SVG: escaped, without control characters."""
    return escape(plain(words))


def number(value: float) -> str:
    """A short number."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """The points, of many only the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= MOST:
        return points
    kept: list[Point] = []
    for stretch in np.array_split(np.array(points), MOST // 2):
        kept += [tuple(stretch[place]) for place in sorted({stretch[:, 1].argmin(), stretch[:, 1].argmax()})]
    return kept

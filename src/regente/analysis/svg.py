"""Figures as SVG text, in the colours of the page that holds them; what they show is also said in words."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from regente.tracking.svg import clean, number, ticks

WIDTH, HEIGHT = 460, 300  # units of the view box: 12 of them are a letter's height
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44
MARKED = 6  # values of a setting that are ticks of its axis
COLOURS = 8  # classes c0 to c7 of report.css
Point = tuple[float, float]
Value = float | str  # of a setting


@dataclass
class Axis:
    """A scale from values to places, linear or logarithmic, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    marked: Sequence[float] = ()  # instead of round values

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, of_setting: bool = False) -> "Axis":
        """The scale that holds all values; of a setting logarithmic over a decade, with its few values as ticks."""
        low, high = min(values), max(values)
        marked = sorted(set(values)) if of_setting and len(set(values)) <= MARKED else ()
        if of_setting and low > 0 and high / low >= 10:
            return cls(math.log10(low), math.log10(high), start, end, log=True, marked=marked)
        room = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
        return cls(low - room, high + room, start, end, marked=marked)

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        return self.start + (place - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About five round values."""
        if self.marked:
            return list(self.marked)
        if self.log:
            return [
                10.0**power for power in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
            ]
        return ticks(self.low, self.high)


@dataclass
class Drawing:
    """Pieces of SVG in a view box, with a title and a description for those who do not see it."""

    title: str
    description: str
    width: float = WIDTH
    height: float = HEIGHT
    pieces: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, *, anchor: str = "middle", turn: float = 0) -> None:
        """Words at a place."""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.pieces.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{clean(words)}</text>'
        )

    def line(self, points: Sequence[Point], kind: str, extra: str = "") -> None:
        """A line through points; `kind`: classes of its style."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.pieces.append(f'<polyline class="{kind}" points="{places}"{extra}/>')

    def area(self, points: Sequence[Point], kind: str) -> None:
        """A filled area inside of points."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.pieces.append(f'<polygon class="{kind}" points="{places}"/>')

    def dot(self, x: float, y: float, kind: str, words: str = "") -> None:
        """A point; `words` are shown when the mouse rests on it."""
        self.pieces.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{clean(words)}</title></circle>'
        )

    def axes(self, x: Axis | None, y: Axis, x_name: str, y_name: str) -> None:
        """Ticks, a grid and the names of both axes; no ticks of x without its scale."""
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for value in y.ticks():
            self.line([(LEFT, y(value)), (right, y(value))], "grid")
            self.text(LEFT - 6, y(value) + 4, number(value), anchor="end")
        for value in x.ticks() if x else ():
            assert x is not None
            self.line([(x(value), TOP), (x(value), bottom)], "grid")
            self.text(x(value), bottom + 16, number(value))
        self.line([(LEFT, TOP), (LEFT, bottom), (right, bottom)], "axis")
        self.text((LEFT + right) / 2, self.height - 8, x_name)
        self.text(13, (TOP + bottom) / 2, y_name, turn=-90)

    def svg(self) -> str:
        """The element."""
        label = clean(f"{self.title}. {self.description}")
        box = f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{label}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(self.pieces)}</svg>'


@dataclass(frozen=True)
class Curve:
    """The mean of several runs over the steps, and the band of one standard deviation."""

    name: str
    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def curves(title: str, description: str, found: Sequence[Curve], x_name: str, y_name: str) -> str:
    """Lines with bands, in the colours of a legend outside of the figure."""
    drawing = Drawing(title, description)
    x = Axis.of([step for each in found for step in each.steps], LEFT, WIDTH - RIGHT)
    values = [value for each in found for value in (*each.low, *each.high)]
    y = Axis.of(values, HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, x_name, y_name)
    for place, each in enumerate(found):
        above = [(x(step), y(value)) for step, value in zip(each.steps, each.high, strict=True)]
        below = [(x(step), y(value)) for step, value in zip(each.steps, each.low, strict=True)]
        if above != below:
            drawing.area([*above, *reversed(below)], f"band c{place % COLOURS}")
    for place, each in enumerate(found):
        points = [(x(step), y(value)) for step, value in zip(each.steps, each.mean, strict=True)]
        drawing.line(points, f"curve c{place % COLOURS}")
        if len(points) == 1:
            drawing.dot(*points[0], f"dot c{place % COLOURS}", each.name)
    return drawing.svg()


def scale(
    column: Sequence[Value], start: float, end: float, *, of_setting: bool = True
) -> tuple[Axis | None, dict[Value, float]]:
    """The axis of a setting, if its values are numbers, and the place of each value."""
    numbers = [value for value in column if not isinstance(value, str)]
    if len(numbers) == len(column) and len(set(numbers)) > 1:
        axis = Axis.of(numbers, start, end, of_setting=of_setting)
        return axis, {value: axis(value) for value in numbers}
    levels = sorted(dict.fromkeys(column), key=natural)
    step = (end - start) / len(levels)
    return None, {level: start + (place + 0.5) * step for place, level in enumerate(levels)}


def natural(value: Value) -> list[tuple[bool, float, str]]:
    """An order of texts in which 9 comes before 10."""
    parts = re.split(r"(\d+)", str(value))
    return [(part.isdecimal(), float(part) if part.isdecimal() else 0.0, part) for part in parts]


def slice_of(
    key: str, column: Sequence[Value], values: Sequence[float], names: Sequence[str], metric: str
) -> str:
    """A point for each run: the metric over the values of a setting."""
    x, places = scale(column, LEFT + 12, WIDTH - RIGHT - 12)
    drawing = Drawing(f"{metric} over {key}", f"{len(values)} runs at {len(places)} values")
    y = Axis.of(values, HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, key, metric)
    if x is None:
        for level, at in places.items():
            drawing.text(at, HEIGHT - BOTTOM + 16, shortened(str(level), 360 // (6 * len(places))))
    means = []
    for level in sorted(places, key=lambda level: places[level]):
        here = [value for value, other in zip(values, column, strict=True) if other == level]
        means.append((places[level], y(sum(here) / len(here))))
    drawing.line(means, "curve c1")
    for value, level, name in zip(values, column, names, strict=True):
        drawing.dot(places[level], y(value), "dot c0", f"{name}: {number(value)}")
    return drawing.svg()


def parallel(
    columns: dict[str, Sequence[Value]], values: Sequence[float], metric: str, *, less_is_better: bool
) -> str:
    """A line for each run through its settings to the metric; the better, the stronger."""
    axes = [*columns.items(), (metric, values)]
    width = max(WIDTH, 120 * len(axes))
    said = f"{len(values)} runs over {len(columns)} settings"
    drawing = Drawing(f"Settings and {metric}", said, width=width)
    top, bottom, apart = 34.0, HEIGHT - 16.0, (width - 120) / max(1, len(axes) - 1)
    places: list[list[float]] = []
    labels = Drawing("", "")  # over the lines
    for place, (key, column) in enumerate(axes):
        at = 60 + place * apart
        drawing.line([(at, top), (at, bottom)], "axis")
        drawing.text(at, 14, shortened(key, 18))
        axis, spots = scale(column, bottom, top, of_setting=place < len(columns))
        places.append([spots[value] for value in column])
        ticks = {axis(value): number(value) for value in axis.ticks()} if axis else {}
        for height, words in (ticks or {spots[each]: shortened(str(each), 12) for each in spots}).items():
            last = place == len(columns)  # right of the lines, which all come from the left
            labels.text(at + (6 if last else -6), height + 4, words, anchor="start" if last else "end")
    order = sorted(range(len(values)), key=lambda run: values[run], reverse=less_is_better)
    for rank, run in enumerate(order):  # the best is drawn last
        points = [(60 + place * apart, heights[run]) for place, heights in enumerate(places)]
        opacity = 0.12 + 0.78 * rank / max(1, len(order) - 1)
        drawing.line(points, "path c0", f' stroke-opacity="{opacity:.2f}"')
    drawing.pieces += labels.pieces
    return drawing.svg()


def confusion(title: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are true classes, columns predicted ones; the colour is the share of the row."""
    size = len(counts)
    wrong = sorted(
        (
            (counts[a][b], names[a], names[b])
            for a in range(size)
            for b in range(size)
            if a != b and counts[a][b]
        ),
        reverse=True,
    )[:3]
    most = "; ".join(f"{n} of {true} predicted as {guess}" for n, true, guess in wrong) or "no mistakes"
    total = sum(map(sum, counts))
    right = sum(counts[place][place] for place in range(size)) / max(1, total)
    drawing = Drawing(
        title, f"Accuracy {right:.2%} of {total} samples; most often confused: {most}", width=360, height=360
    )
    cell = 300 / size
    for row, line in enumerate(counts):
        share = [count / max(1, sum(line)) for count in line]
        drawing.text(54, 8 + (row + 0.5) * cell + 4, shortened(names[row], 7), anchor="end")
        drawing.text(58 + (row + 0.5) * cell, 322, shortened(names[row], max(2, int(cell / 6))))
        for column, count in enumerate(line):
            x, y = 58 + column * cell, 8 + row * cell
            # at most 0.45: the number has to be readable on it in both themes
            box = f'x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}"'
            drawing.pieces.append(f'<rect class="cell" {box} fill-opacity="{0.45 * share[column]:.3f}"/>')
            if count:
                drawing.text(x + cell / 2, y + cell / 2 + 4, str(count))
    drawing.text(58 + 150, 344, "predicted")
    drawing.text(10, 158, "true", turn=-90)
    return drawing.svg()


def shortened(words: str, most: int) -> str:
    """Words of at most so many letters."""
    return words if len(words) <= most else words[: max(1, most - 1)] + "…"


def thinned(points: Sequence[float], most: int = 150) -> list[int]:
    """Places of at most about so many points, with the first and the last."""
    step = max(1, len(points) // most)
    found = [*range(0, len(points), step)]
    return found if not points or found[-1] == len(points) - 1 else [*found, len(points) - 1]

"""Interactive pages: figures that a reader explores, each one HTML file that loads nothing from anywhere.

A drawing function of a replication's figures.py may return a `Page` where others return a matplotlib Figure; title and
caption are its docstring, as for figures:

    def heads(results: Results) -> Page:
        '''Every head on one prompt

        What to look for.
        '''
        result = results.of("attention")["attn-only-2l"]
        return attention_page(result["patterns"], result.facts["tokens"], result.facts["heads"], initial="1.5")

A map of values by layer and head (`head_map_page`) opens the attention pattern of the head that is clicked:

        return head_map_page(result["scores"], "Induction score", patterns={(1, 5): ...}, tokens=result.facts["tokens"])

`reprise figures` writes it as `<name>.html`; the report shows it in an iframe that may run scripts and nothing else, so
a page can keep nothing, open nothing and reach no other page; it tells the report its height. Exact: the tokens, spaces
and control characters shown as marks. Approximate: weights are rounded to multiples of 1/255, half a step (0.002) at
most away from the given ones.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy takes longer to import than `reprise list` may take
    import numpy as np
    from jinja2 import Environment
    from numpy.typing import NDArray

    Patterns = NDArray[np.floating]

Head = tuple[int, int]

TEMPLATES = Path(__file__).parent / "page_templates"
STEPS = 255
# A mean over prompts may pass 1 by a rounding error.
TOLERANCE = 1e-5
MARKS = {" ": "\u2423", "\n": "\u23ce", "\t": "\u21e5", "\r": "\u240d", "\x7f": "\u2421"}
EMPTY = "\u2205"
# Of a head in a map, in rem: for up to 16 heads a layer, and for more.
SIDES = (2.1, 1.4)


@dataclass(frozen=True)
class Page:
    """A complete HTML document without links to other files, and the height in CSS pixels that the report gives it."""

    html: str
    height: int = 520

    def __post_init__(self) -> None:
        if self.height < 1:
            raise ValueError(f"page: expected a height of at least 1 pixel, received {self.height}; 520 is usual")


def attention_page(
    patterns: Patterns, tokens: Sequence[str], labels: Sequence[str], *, initial: str | None = None
) -> Page:
    """Attention patterns of several heads on one text: every head small, one large, and the text to point at.

    Equal arguments give equal bytes. A page of 24 heads and 64 tokens has 150 kB; size grows as heads x tokens^2 x 4/3.

    Args:
        patterns: attention weights in [0, 1], shape [head, query, key]; rows need not sum to 1.
        tokens: the text of every position.
        labels: what each head is called, usually "layer.head"; all different.
        initial: the label of the head that is shown first; the first head without it.

    Raises:
        ValueError: if shapes disagree, a weight is no share, labels repeat, or `initial` is none of them.
    """
    values = _checked(patterns, tokens, labels)
    if initial is not None and initial not in labels:
        raise ValueError(f"initial: expected one of {len(labels)} labels, received {initial!r}; take one of `labels`")
    html = _render("attention.html", ("attention",), **_shown(values, tokens, labels, initial))
    return Page(html, _height(tokens, labels))


def head_map_page(
    values: Patterns,
    quantity: str,
    *,
    patterns: Mapping[Head, Patterns] | None = None,
    tokens: Sequence[str] = (),
    initial: Head | None = None,
) -> Page:
    """A value for every head as a map of layers and heads; a click on a head opens its attention pattern below.

    Colours run from 0 to the largest absolute value, in a second hue for values under 0. Equal arguments give equal
    bytes.

    Args:
        values: shape [layer, head].
        quantity: what the values are, with their unit; the title of the map.
        patterns: attention weights in [0, 1], shape [query, key], of some or all heads, by (layer, head); heads without
            one show their value and open nothing.
        tokens: the text of every position of the patterns.
        initial: the head whose pattern is open at first; without it none is.

    Raises:
        ValueError: if shapes disagree, a value is not finite, a weight is no share, or a head is not there.
    """
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"values: expected finite numbers of shape [layer, head], neither of them 0, received shape {values.shape} "
            f"with {int((~np.isfinite(values)).sum())} that are not finite; give one number for every head"
        )
    stored = dict(sorted((patterns or {}).items()))
    if outside := [head for head in stored if not all(0 <= at < n for at, n in zip(head, values.shape, strict=True))]:
        raise ValueError(
            f"patterns: expected heads of {values.shape[0]} layers and {values.shape[1]} heads, received {outside[0]}; "
            "name them (layer, head), both counted from 0"
        )
    if initial is not None and initial not in stored:
        raise ValueError(f"initial: expected one of the {len(stored)} heads in `patterns`, received {initial}; add it")
    labels = [f"{layer}.{head}" for layer, head in stored]
    n = len(tokens)
    for label, pattern in zip(labels, stored.values(), strict=True):
        if np.shape(pattern) != (n, n):
            raise ValueError(
                f"patterns: expected shape [{n}, {n}] for {n} tokens, received {np.shape(pattern)} for head {label}; "
                "give one token for every position, the same ones as queries and as keys"
            )
    shown: dict[str, object] = {"labels": labels}
    if stored:
        of = _checked(np.stack(list(stored.values())), tokens, labels)
        shown = _shown(of, tokens, labels, None if initial is None else "{}.{}".format(*initial))
    most = float(np.abs(values).max())
    html = _render(
        "head_map.html",
        ("attention", "head_map") if stored else ("head_map",),
        quantity=quantity,
        rows=_cells(values, most, list(stored)),
        scale=(f"{-most:.3g}" if values.min() < 0 else "0", f"{most:.3g}"),
        side=SIDES[values.shape[1] > 16],
        opened=initial is not None,
        **shown,
    )
    map_height = 210 + round((16 * SIDES[values.shape[1] > 16] + 2) * len(values))
    return Page(html, map_height + (_height(tokens, labels) if initial is not None else 0))


def _cells(values: Patterns, most: float, stored: Sequence[Head]) -> list[list[dict[str, object]]]:
    """What the template says of each head: its value in words, its colour, and the number of its pattern."""
    numbers = {head: number for number, head in enumerate(stored)}
    return [
        [
            {
                "value": f"{value:.3g}",
                "minus": value < 0,
                "share": f"{abs(value) / most if most else 0:.3f}",
                "pattern": numbers.get((layer, head)),
            }
            for head, value in enumerate(row)
        ]
        for layer, row in enumerate(values)
    ]


def _shown(values: Patterns, tokens: Sequence[str], labels: Sequence[str], initial: str | None) -> dict[str, object]:
    """What the template of attention patterns needs."""
    return {
        "labels": labels,
        "selected": labels.index(initial) if initial is not None else 0,
        "tokens": [(_visible(token), token.endswith("\n")) for token in tokens],
        "weights": base64.b64encode(_quantised(values)).decode(),
    }


def _checked(patterns: Patterns, tokens: Sequence[str], labels: Sequence[str]) -> Patterns:
    import numpy as np

    values = np.asarray(patterns, dtype=np.float64)
    n = len(tokens)
    if values.ndim != 3 or not values.size:
        raise ValueError(
            f"patterns: expected shape [head, query, key], none of them 0, received {values.shape}; "
            "give a single head as pattern[None]"
        )
    if values.shape[1:] != (n, n):
        raise ValueError(
            f"patterns: expected shape [head, {n}, {n}] for {n} tokens, received {values.shape}; "
            "give one token for every position, the same ones as queries and as keys"
        )
    if len(labels) != len(values):
        raise ValueError(
            f"labels: expected {len(values)}, one for every head, received {len(labels)}; name them like '0.6'"
        )
    if repeated := [label for number, label in enumerate(labels) if label in labels[:number]]:
        raise ValueError(f"labels: expected different ones, received {repeated[0]!r} twice; name them like '0.6'")
    inside = (values >= -TOLERANCE) & (values <= 1 + TOLERANCE)
    if not inside.all():
        head, query, key = np.argwhere(~inside)[0]
        raise ValueError(
            f"patterns: expected weights in [0, 1], received {values[head, query, key]:g} for head {labels[head]}, "
            f"query {query}, key {key}; give the pattern after the softmax, of a prompt without padding"
        )
    return values


def _quantised(values: Patterns) -> bytes:
    """Weights as bytes in the order head, query, key: 0 is 0 and 255 is 1."""
    import numpy as np

    return np.rint(np.clip(values, 0, 1) * STEPS).astype(np.uint8).tobytes()


def _visible(token: str) -> str:
    """A token with a mark for everything that would not be seen; its markup is escaped later, by the template."""
    marked = "".join(MARKS.get(character, character) for character in token) or EMPTY
    marked = re.sub(r"[\x00-\x1f]", lambda match: chr(0x2400 + ord(match[0])), marked)
    return re.sub(r"[\x80-\x9f\ud800-\udfff]", "\ufffd", marked)


def _height(tokens: Sequence[str], labels: Sequence[str]) -> int:
    """About what a page 1000 pixels wide needs; it scrolls where that is too little."""
    rows_of_heads = min(3, 1 + (len(labels) - 1) // 15)
    lines, column = 1, 0
    for token in tokens:
        column += len(token) + 1
        if column > 105 or token.endswith("\n"):
            lines, column = lines + 1, 0
    return 565 + 75 * rows_of_heads + 28 * min(12, lines)


def _render(name: str, scripts: Sequence[str], **values: object) -> str:
    from markupsafe import Markup

    script = Markup("".join((TEMPLATES / f"{stem}.js").read_text(encoding="utf-8") for stem in (*scripts, "frame")))
    styles = dict.fromkeys(("attention", *scripts))
    style = Markup("".join((TEMPLATES / f"{stem}.css").read_text(encoding="utf-8") for stem in styles))
    return _environment().get_template(name).render(style=style, script=script, **values)


@cache  # compiling the templates takes longer than filling them in
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

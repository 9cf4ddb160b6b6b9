"""Capturing and editing activations in runs of one's own: forward passes, generation, training steps.

    with captured(network, [Site("z", 5, head=1, position=-1)]) as seen:
        network(tokens)
    seen[Site("z", 5, head=1, position=-1)]            # a list with one tensor [batch, d_head] for each forward pass

    with edited(network, {Site("resid_post", 5): Add(4.0 * direction)}):
        network.generate(tokens)

Both are exact: the activation itself is read or replaced, in the pass that the caller makes, and every hook is gone
after the `with`. A pass is one call of the network. In generation with a cache the first call holds the prompt and each
later one the newest token alone, so position -1 is the last token of the prompt, then every new token, and position -3
is met in the prompt only; without a position an edit holds everywhere. k and v are edited on their way from the cache
into attention and are cached as they were: an edit of them at one position holds for that call, not for later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions import sources
from interventions.attention import Callback
from interventions.edits import Add, Apply, Edit, ProjectOut, Zero, as_function
from interventions.hooks import HEADS, Modules, attached
from interventions.network import inference
from interventions.prompts import Prompts

SiteEdit = Callable[[Tensor], Tensor] | Edit | Tensor
"""What to do at a site: a function of the activation, an edit that needs no other run, or a tensor to put there."""


@dataclass(frozen=True)
class Site:
    """An activation, as `hooks` shows the component; `head` and `position` narrow it down and drop that dimension.

    `position` counts from the end of each call (-1 is the last); of a pattern it is the query's.
    """

    component: str
    layer: int
    head: int | None = None
    position: int | None = None

    def check(self, modules: Modules) -> None:
        """Refuse a site that the network does not have.

        Raises:
            ValueError: naming it.
        """
        modules.check(self.component, self.layer)
        if self.position is not None and self.position >= 0:
            raise ValueError(f"{self}: position {self.position}: expected -1 or less, counted from the end")
        if self.head is None:
            return
        if self.component not in HEADS:
            raise ValueError(f"{self}: {self.component} has no heads: expected head=None, or one of {', '.join(HEADS)}")
        n_heads = modules.n_kv_heads if self.component in ("k", "v") else modules.n_heads
        if not 0 <= self.head < n_heads:
            raise ValueError(f"{self}: head {self.head} does not exist: {self.component} has heads 0 to {n_heads - 1}")

    @property
    def index(self) -> tuple[int | slice, ...]:
        """Where the site is in the component's tensor."""
        position = slice(None) if self.position is None else self.position
        return (slice(None), position) if self.head is None else (slice(None), position, self.head)

    def __str__(self) -> str:
        return f"{self.component} of layer {self.layer}"


@contextmanager
def captured(
    network: nn.Module,
    sites: Iterable[Site],
    *,
    edits: Mapping[Site, SiteEdit] | None = None,
    device: torch.device | str | None = None,
) -> Iterator[dict[Site, list[Tensor]]]:
    """Inside, every forward pass appends its activation at each site, and nothing else is stored.

    Args:
        sites: each gives [batch, pos, ...] as `hooks` shows the component, without the dimensions of a given head and
            position; detached copies.
        edits: made in the same passes; what is captured is the edited activation.
        device: to store on; by default where the activation was made.

    Raises:
        ValueError: before anything runs, a site does not exist; after all has run, no pass was long enough for a
            position.
        RuntimeError: q, k, v or patterns are asked for while another context replaces the network's attention.
    """
    modules = Modules(network)
    sites = tuple(sites)
    seen: dict[Site, list[Tensor]] = {site: [] for site in sites}
    steps = [_Step(site, _editing(site, edit)) for site, edit in (edits or {}).items()]

    def keep(site: Site) -> Callable[[Tensor], None]:
        def see(x: Tensor) -> None:
            seen[site].append(x.detach().to(x.device if device is None else device, copy=True))

        return see

    steps += [_Step(site, keep(site)) for site in seen]
    for step in steps:
        step.site.check(modules)
    with attached(modules, _callbacks(steps)):
        yield seen
    for step in steps:
        if step.calls and not step.met:
            raise ValueError(
                f"{step.site}: position {step.site.position} was in none of {step.calls} passes: expected a sequence "
                f"of at least {-(step.site.position or -1)} tokens"
            )


@contextmanager
def edited(network: nn.Module, edits: Mapping[Site, SiteEdit]) -> Iterator[None]:
    """Inside, every forward pass has the edits; several at one component and layer are made in the order given.

    Args:
        edits: by site. An edit sees [batch, pos, ...] without the dimensions of a given head and position, and returns
            the same shape. Replacing by activations of other prompts: `values_of` gives them.

    Raises:
        TypeError: before anything runs, something is no edit, or an edit needs other prompts' activations.
        ValueError, RuntimeError: as `captured`; or an edit returns another shape.
    """
    with captured(network, (), edits=edits):
        yield


def values_of(
    network: nn.Module, prompts: Prompts, component: str, layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch pos ..."]]:
    """A component on prompts, by layer, in one ordinary pass: what to put at a site of another run.

    Raises:
        ValueError: the network has no such component or layer.
    """
    with inference(network):
        return sources.captured(Modules(network), prompts, component, layers)


@dataclass
class _Step:
    """One thing to do at a site, and how many passes came by and had its position."""

    site: Site
    do: Callable[[Tensor], Tensor | None]
    calls: int = 0
    met: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.site.position is not None and -self.site.position > x.shape[1]:
            return x
        self.met += 1
        if self.site.head is None and self.site.position is None:
            new = self.do(x)
            return x if new is None else new
        new = self.do(x[self.site.index])
        if new is None:
            return x
        x = x.clone()
        x[self.site.index] = new
        return x


def _callbacks(steps: Sequence[_Step]) -> dict[tuple[str, int], Callback]:
    """One callback for all steps at a component of a layer."""
    groups: dict[tuple[str, int], list[_Step]] = {}
    for step in steps:
        groups.setdefault((step.site.component, step.site.layer), []).append(step)

    def together(group: list[_Step]) -> Callback:
        def callback(x: Tensor) -> Tensor:
            for step in group:
                x = step(x)
            return x

        return callback

    return {place: together(group) for place, group in groups.items()}


def _editing(site: Site, edit: SiteEdit) -> Callable[[Tensor], Tensor]:
    """The edit as a function that keeps shape and dtype."""
    function: Callable[[Tensor], Tensor]
    if isinstance(edit, Tensor):
        function = _putting(edit)
    elif isinstance(edit, (Zero, Add, ProjectOut, Apply)):
        function = as_function(edit)
    elif callable(edit):
        function = edit
    else:
        raise TypeError(
            f"{site}: {type(edit).__name__} is no edit for one run: expected a function, a tensor, Zero, Add, "
            f"ProjectOut or Apply; for other prompts' activations pass values_of(...)[{site.layer}]"
        )

    def checked(x: Tensor) -> Tensor:
        new = function(x)
        if new.shape != x.shape:
            raise ValueError(f"{site}: the edit gives shape {tuple(new.shape)}: expected {tuple(x.shape)}, as it saw")
        return new.to(x)

    return checked


def _putting(value: Tensor) -> Callable[[Tensor], Tensor]:
    """The value, broadcast to the activation where its shape allows."""

    def function(x: Tensor) -> Tensor:
        sizes = zip(value.shape[::-1], x.shape[::-1], strict=False)
        fits = value.ndim <= x.ndim and all(mine in (1, its) for mine, its in sizes)
        return value.to(x).expand_as(x) if fits else value

    return function

"""The benchmark compares like with like: engine and plain hooks give the same numbers, and shares are of real work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from replications.indirect_object_identification import bench, bench_flops, measured_circuits
from replications.indirect_object_identification.bench import Compared, Words, parts_of, rows, setting_of
from replications.indirect_object_identification.bench_search import EVERY, Part
from replications.indirect_object_identification.circuit import Circuit
from replications.indirect_object_identification.patching_stages import stream_effects
from replications.indirect_object_identification.plain_patching import Network, Patching, hooked
from replications.indirect_object_identification.setting import Setting
from torch import Tensor

from interventions import Prompts
from reprise import benchmarks
from reprise.errors import UserError

N_LAYERS, N_HEADS, PROMPTS = 3, 4, 5
CIRCUIT = Circuit(
    "small",
    {"movers": ((2, 1), (2, 3)), "inhibition": ((1, 2), (2, 0)), "induction": ((1, 0),), "previous": ((0, 3),)},
    {"movers": ("END",), "inhibition": ("END",), "induction": ("S2",), "previous": ("S1+1",)},
)
EFFORT = replace(
    measured_circuits.EFFORT["paper"],
    search=4,
    all_of=8,
    grown=2,
    among=3,
    draws=2,
    greedy=1,
    greedy_steps=2,
    greedy_among=2,
)
NAMES = (
    "direct attribution",
    "patching the stream at words",
    "patching heads at END",
    "patching heads at all tokens",
    "patching attention from END",
    "paths to the logits",
    "paths to queries of the movers",
    "paths to keys and values of S-inhibition",
    "paths to keys of the induction heads",
    "means over p_ABC",
    "faithfulness",
    "completeness",
    "minimality",
    "integrated gradients",
    "elimination",
)


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    """Of a random GPT-2 of which every head matters; five of its prompts have four lengths."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_layer": N_LAYERS, "n_head": N_HEADS, "n_embd": 32, "n_positions": 32, "vocab_size": len(Words())}
    network = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measured_circuits.EFFORT, "paper", EFFORT)
        patch.setattr(bench, "peak_mib", lambda call: call() or 1.0)
        yield setting_of(network, PROMPTS)


@pytest.fixture(scope="module")
def parts(setting: Setting) -> dict[str, Part]:
    naive = CIRCUIT.only([(2, 1), (1, 2), (0, 3)])
    return {part.name: part for part in parts_of(setting, CIRCUIT, naive)}


@pytest.fixture(scope="module")
def compared(parts: dict[str, Part]) -> dict[str, Compared]:
    return {name: Compared.of(replace(part, every=1)) for name, part in parts.items()}


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_numbers(compared: dict[str, Compared], name: str) -> None:
    found = compared[name]
    assert found.difference <= 2e-4 * found.largest
    assert found.largest > 0.02, "an effect of nothing shows nothing"
    assert found.passes[0] == found.passes[1] > 0


def test_every_cell_of_the_analysis_is_there(compared: dict[str, Compared]) -> None:
    heads = {(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)}
    cells = {name: set(each.cells) for name, each in compared.items()}
    labels = {f"L{layer}H{head}" for layer, head in heads} | {f"MLP{layer}" for layer in range(N_LAYERS)}
    assert cells["direct attribution"] == labels
    assert len(cells["patching the stream at words"]) == 5 * N_LAYERS
    for name in ("patching heads at END", "patching heads at all tokens", "patching attention from END"):
        assert cells[name] == heads
    assert cells["paths to the logits"] == cells["integrated gradients"] == heads
    before = {(layer, head) for layer, head in heads if layer < 2}
    assert cells["paths to queries of the movers"] == {("q", head) for head in before}
    assert cells["paths to keys and values of S-inhibition"] == {(into, head) for into in "kv" for head in before}
    assert cells["paths to keys of the induction heads"] == {("k", head) for head in before if head[0] == 0}
    assert len(cells["faithfulness"]) == 6 + EFFORT.draws
    assert {kind for kind, _ in cells["faithfulness"]} == {"scored"}
    for name in ("completeness", "minimality"):
        assert {kind for kind, _ in cells[name]} == {"scored", "searched"}
    assert {kind for kind, _ in cells["elimination"]} == {"searched"}
    sizes = Counter(sum(node > 0 for layer in nodes for node in layer) for _, nodes in cells["elimination"])
    assert {1, 2, len(heads)} <= sizes.keys()
    assert sizes[6] == 7, "4 of the circuit's 6 heads are among the first 7, each of which is taken away"


@contextmanager
def counted_blocks(setting: Setting) -> Iterator[list[int]]:
    """Inside, the prompts that have gone through a block, and how many went through each."""
    blocks: Any = setting.model.network.transformer.h
    counts: list[int] = []
    with hooked({}, {block: lambda x: counts.append(len(x)) for block in blocks}):
        yield counts


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_of_cells_is_what_plain_hooks_do_for_them(
    setting: Setting, parts: dict[str, Part], compared: dict[str, Compared], name: str
) -> None:
    part, cells = parts[name], compared[name].cells[:3]
    part.plain(cells)  # what is recorded once
    with counted_blocks(setting) as counts:
        part.plain(cells)
    cost = part.cost(cells)
    if name == "integrated gradients":  # with the way back, and one pass to record
        cost = cost / 1.5 + EFFORT.search
    assert sum(counts) == pytest.approx(cost * N_LAYERS)


def test_ways_that_differ_are_refused(parts: dict[str, Part]) -> None:
    part = parts["patching heads at END"]
    wrong = replace(part, plain=lambda cells: [1.1 * each for each in part.plain(cells)], every=3)
    message = r"patching heads at END: engine and plain hooks differ by .*, expected at most 0.001 of the largest value"
    with pytest.raises(RuntimeError, match=message):
        next(rows([wrong], lambda line: None))

    def with_nan(cells: Any) -> list[Tensor]:
        *found, last = part.plain(cells)
        return [*found, last * torch.nan]

    with pytest.raises(RuntimeError, match="differ by nan"):
        next(rows([replace(part, plain=with_nan, every=3)], lambda line: None))


def test_rows_compare_each_part_and_the_whole_with_plain_hooks(
    parts: dict[str, Part], compared: dict[str, Compared]
) -> None:
    told: list[str] = []
    chosen = [replace(parts["patching heads at END"], every=5), replace(parts["faithfulness"], every=4)]
    chosen.append(parts["means over p_ABC"])
    found = list(rows(chosen, told.append))
    names = [*(part.name for part in chosen), "the whole analysis"]
    assert [row[0] for row in found] == [f"{name}, {way}" for name in names for way in ("plain hooks", "engine")]
    assert [row[1] for row in found] == [of for name in names for of in (None, f"{name}, plain hooks")]
    work = [dict(row[3]) if len(row) == 4 else {} for row in found]
    n_circuits = len(compared["faithfulness"].cells)
    some = [2, len(range(2, n_circuits, 4))]  # heads 2 and 7 of 12
    shares = [each.get("sampled", 1.0) for each in work]
    assert shares == pytest.approx([some[0] / 12, 1, some[1] / n_circuits, 1, 1, 1, 1, 1])
    assert all(each["peak_mib"] == 1.0 for each in work[:-2])
    assert [row[2] for row in found[-2:]] == [tuple(row[0] for row in found[at:-2:2]) for at in (0, 1)]
    assert told[0].startswith("patching heads at END: the two ways differ by")
    assert told[0].endswith("on 2 cells")


@pytest.mark.parametrize("cells", [60, 144, 120, 192, 72])
def test_cells_that_are_timed_are_spread_over_layers_and_heads(cells: int) -> None:
    """Of the stream at words, of heads, and of heads before the receivers of GPT-2 small's circuit."""
    chosen = range(cells)[EVERY // 2 :: EVERY]
    assert 0.8 * cells / EVERY < len(chosen) < 1.3 * cells / EVERY
    assert len({at % 12 for at in chosen}) >= min(len(chosen), 3)
    assert len({at // 12 for at in chosen}) == len(chosen)


def test_plain_hooks_are_gone_afterwards(setting: Setting) -> None:
    clean, abc = setting.pair(PROMPTS)
    patching = Patching(Network(setting.model.network), clean, abc)
    patching.paths_to_inputs([(0, 1)], [(1, 2)], "k", "S2")
    assert not hooks_of(setting)
    with pytest.raises(IndexError):
        patching.heads([(0, 99)])
    assert not hooks_of(setting)


def hooks_of(setting: Setting) -> list[Any]:
    modules = setting.model.network.modules()
    return [hook for module in modules for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_prompts_have_several_lengths_and_the_papers_words(setting: Setting) -> None:
    clean, _ = setting.pair(PROMPTS)
    assert len(set(clean.lengths.tolist())) > 2
    assert isinstance(clean.prompts, Prompts)
    words = Words()
    assert words.decode(words.encode("Then, Anna")).startswith("Then,")
    assert len(words) < 1000


def test_the_benchmark_is_found_by_its_name() -> None:
    found: Any = benchmarks.find("ioi")
    assert (found.__module__, found.__name__) == (bench.__name__, "rows")
    with pytest.raises(UserError, match=r"no benchmark 'nothing'; there are: .*patching.*, ioi"):
        benchmarks.find("nothing")


def test_flops_are_those_of_the_rows_that_go_through_linear_layers(setting: Setting, parts: dict[str, Part]) -> None:
    network, prompts = setting.model.network, setting.clean(PROMPTS)
    whole = 24.0 * 7**2 * N_LAYERS * int(prompts.lengths.sum())  # two for each of 12 d_model^2 weights, if 7 wide
    heads = replace(parts["patching heads at END"], every=5)
    gradients = parts["integrated gradients"]
    parts["patching the stream at words"].engine()  # which records clean prompts and p_ABC
    cost, of_gradients = bench_flops.costs(network, [heads, gradients], d_model=7)
    assert cost.name == "patching heads at END"
    assert cost.plain == pytest.approx(N_LAYERS * N_HEADS * whole)
    # Rows at END, each of a head, from behind its layer's attention on; clean and p_ABC are recorded before.
    assert cost.engine == pytest.approx(24 * 7**2 * PROMPTS * N_HEADS * (3 * 3 / 4 + 1 + 2))
    # That is counted where it comes first, each time.
    stream = parts["patching the stream at words"].engine
    with_recording, alone = (
        bench_flops.counted(network, call, d_model=7)
        for call in (stream, lambda: stream_effects(setting, *setting.pair(PROMPTS)))
    )
    assert with_recording - alone == pytest.approx(2 * whole)
    # There, for each step and layer; back through layers and what is behind z that is moved; and a clean pass.
    n = 24.0 * 7**2 * int(setting.clean(4).lengths.sum()) * 2
    forward, back = n * N_LAYERS**2, n * sum(3 / 4 + at for at in range(N_LAYERS))
    assert of_gradients.plain == pytest.approx(forward + back + n / 2 * N_LAYERS)
    assert of_gradients.engine < of_gradients.plain
    assert bench_flops.markdown([cost]).splitlines()[-1].startswith("| **all** | 0.00 | 0.0 | ")

"""The search for the circuit of indirect object identification: every stage against one plain pass a cell."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.indirect_object_identification import (
    attribution_stages,
    grouping,
    head_stages,
    patching_stages,
    performance_stages,
    setting,
)
from replications.indirect_object_identification.grouping import WORDS, groups_of

from reprise import Result
from reprise.models import ModelReference

from .ioi_search_runs import D_HEAD, FEW, KINDS, N_HEADS, N_LAYERS, Plain, job, place, put, row_of, write


def close(found: Any, expected: Any, atol: float = 2e-4) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)


@pytest.fixture(scope="module", params=KINDS)
def reference(request: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return write(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return write(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "TRIALS", {"tiny": FEW, "paper": FEW})


def test_stages_of_one_process_share_recordings_of_one_model(gpt2: ModelReference) -> None:
    first, again = (setting.settle(job(gpt2, tier)).recordings for tier in ("tiny", "paper"))
    assert first is not None
    assert first is again
    anew = dataclasses.replace(gpt2, fingerprint="1" * 64)
    assert setting.settle(job(anew, "tiny")).recordings is not first


def test_groups_have_one_length_and_their_words_at_one_place(gpt2: ModelReference) -> None:
    of = setting.settle(job(gpt2, "paper"))
    clean, abc = of.pair(40)
    groups = groups_of(clean, WORDS)
    assert sorted(torch.cat([group.rows for group in groups]).tolist()) == list(range(40))
    assert 1 < len(groups_of(clean)) < len(groups)
    for group in groups:
        prompts, source = group.of(clean), group.of(abc)
        assert prompts.valid is None
        for at, row in enumerate(group.rows.tolist()):
            assert torch.equal(prompts.tokens[at], row_of(clean, row)[0])
            assert torch.equal(source.tokens[at], row_of(abc, row)[0])
            for word in WORDS:
                assert group.at[word] + group.length == place(clean, row, word)
            names = {word: int(prompts.tokens[at, group.at[word]]) for word in ("IO", "S1", "S2")}
            assert names == {"IO": int(clean.io[row]), "S1": int(clean.s[row]), "S2": int(clean.s[row])}
            differ = (prompts.tokens[at] != source.tokens[at]).nonzero().flatten().tolist()
            assert differ == sorted(group.at[word] + group.length for word in ("IO", "S1", "S2"))


def test_results_of_groups_come_back_in_the_order_of_the_prompts(gpt2: ModelReference) -> None:
    of = setting.settle(job(gpt2, "paper"))
    clean, _ = of.pair(12)
    seen: list[tuple[int, int]] = []
    found = grouping.by_prompt(groups_of(clean), lambda group: group.rows[:, None] * 2.0, lambda *at: seen.append(at))
    assert found[:, 0].tolist() == [2.0 * row for row in range(12)]
    assert seen[-1] == (12, 12)


def test_prompts_that_are_not_aligned_are_refused(gpt2: ModelReference) -> None:
    of = setting.settle(job(gpt2, "paper"))
    clean, _ = of.pair(12)
    lengths = clean.lengths.tolist()
    longest, shortest = lengths.index(max(lengths)), lengths.index(min(lengths))
    group = grouping.Group(torch.tensor([longest, shortest]), max(lengths), {})
    message = (
        f"prompt {shortest} has {min(lengths)} tokens, expected {max(lengths)} as the prompt that it is aligned with"
    )
    with pytest.raises(ValueError, match=message):
        group.of(clean)


def test_a_model_without_a_tokenizer_is_refused(gpt2: ModelReference, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(Path(gpt2.location) / name)
    bare = ModelReference("bare", "folder", str(tmp_path), "0" * 64)
    with pytest.raises(ValueError, match=r"has no tokenizer: expected one beside the weights"):
        setting.settle(job(bare, "paper"))


@pytest.mark.parametrize("tier", ["tiny", "paper"])
def test_performance_is_that_of_single_prompts(reference: ModelReference, tier: str) -> None:
    result = performance_stages.performance(job(reference, tier))
    of, plain = setting.settle(job(reference, tier)), Plain(reference)
    for part in ("scores", "held_out"):
        clean = of.clean(FEW.performance, part)
        for row in range(FEW.performance):
            log_p = plain.run(row_of(clean, row)).logits[0, -1].log_softmax(dim=0)
            io, s = log_p[clean.io[row]], log_p[clean.s[row]]
            found = {name: float(result[f"{part}.{name}"][row]) for name in performance_stages.COLUMNS}
            assert found["logit_difference"] == pytest.approx(float(io - s), abs=1e-4)
            assert found["probability"] == pytest.approx(float(io.exp()), abs=1e-6)
            assert found["correct"] == float(io > s)
            assert found["first"] == float(int(log_p.argmax()) == int(clean.io[row]))
        templates = [(each.template, ["ABBA", "BABA"].index(each.order)) for each in clean.sentences]
        assert list(zip(result[f"{part}.template"], result[f"{part}.order"], strict=True)) == templates
    clean, abc = of.pair(FEW.search, "scores")
    expected = [plain.difference(clean, row, row_of(abc, row)) for row in range(FEW.search)]
    close(result["abc.logit_difference"], expected)


def test_columns_of_logits_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    found = performance_stages.columns_of(logits, io=torch.tensor([0, 1, 2]), s=torch.tensor([1, 2, 0]))
    e = torch.tensor(1.0).exp()
    assert found[:, 0].tolist() == [1.0, -2.0, 0.0]
    assert found[:, 1].tolist() == [1.0, 0.0, 0.0]
    assert found[:, 2].tolist() == pytest.approx([float(e**2 / (e**2 + e + 1)), float(e / (1 + e + e**3)), 1 / 3])
    assert found[:, 3].tolist() == [1.0, 0.0, 1.0]


def test_attribution_is_what_each_component_writes_through_the_final_norm(reference: ModelReference) -> None:
    result = attribution_stages.attribution(job(reference, "paper"))
    clean = setting.settle(job(reference, "paper")).clean(FEW.search)
    plain = Plain(reference)
    norm, unembedding = plain.final_norm(), plain.network.get_output_embeddings().weight
    for row in range(FEW.search):
        seen = plain.written(row_of(clean, row))
        z = plain.z(row_of(clean, row))
        centre = seen["end"].mean() if hasattr(norm, "bias") else 0.0
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        scale = ((seen["end"] - centre).square().mean() + eps).sqrt()
        with torch.no_grad():
            direction = unembedding[clean.io[row]] - unembedding[clean.s[row]]

            def through(written: Any, norm: Any = norm, scale: Any = scale, direction: Any = direction) -> float:
                centred = written - written.mean() if hasattr(norm, "bias") else written
                return float(centred / scale * norm.weight @ direction)

            for layer in range(N_LAYERS):
                weight = plain.projection(layer).weight
                weight = weight if plain.kind == "gpt2" else weight.T  # [head and d_head, d_model]
                for head in range(N_HEADS):
                    written = z[layer][0, -1, head] @ weight[head * D_HEAD : (head + 1) * D_HEAD]
                    assert result["heads"][row, layer, head] == pytest.approx(through(written), abs=1e-4)
                assert result["mlps"][row, layer] == pytest.approx(through(seen[f"mlp{layer}"]), abs=1e-4)
        assert result["total"][row] == pytest.approx(plain.difference(clean, row), abs=2e-4)
    close(result["attention"], result["heads"].sum(axis=2))
    parts = result["attention"].sum(axis=1) + result["mlps"].sum(axis=1) + result["rest"]
    close(parts, result["total"])


def test_the_stream_is_patched_at_each_word_of_each_prompt(reference: ModelReference) -> None:
    result = patching_stages.stream(job(reference, "paper"))
    clean, abc = setting.settle(job(reference, "paper")).pair(FEW.search)
    plain = Plain(reference)
    assert result["effects"].shape == (FEW.search, len(WORDS), N_LAYERS)
    for row in range(FEW.search):
        before = plain.difference(clean, row)
        assert result["clean"][row] == pytest.approx(before, abs=1e-4)
        for layer in range(N_LAYERS):
            other = plain.stream(layer, row_of(abc, row))
            for at, word in enumerate(WORDS):
                column = place(clean, row, word)

                def edit(x: Any, column: int = column, new: Any = other) -> Any:
                    x = x.clone()
                    x[:, column] = new[:, column]
                    return x

                with plain.stream_edited(layer, edit):
                    after = plain.difference(clean, row)
                assert result["effects"][row, at, layer] == pytest.approx(after - before, abs=2e-4), (word, layer)


def test_heads_are_patched_at_end_and_everywhere(reference: ModelReference) -> None:
    result = patching_stages.heads(job(reference, "paper"))
    of, plain = setting.settle(job(reference, "paper")), Plain(reference)
    for name, n, where in (("effects", FEW.search, [-1]), ("everywhere.effects", FEW.everywhere, slice(None))):
        clean, abc = of.pair(n)
        for row in range(n):
            before, z = plain.difference(clean, row), plain.z(row_of(abc, row))
            for layer in range(N_LAYERS):
                for head in range(N_HEADS):
                    with plain.z_edited({layer: put(z[layer], where, head)}):
                        after = plain.difference(clean, row)
                    assert result[name][row, layer, head] == pytest.approx(after - before, abs=2e-4)


def test_patterns_are_patched_at_end_over_the_values_of_the_clean_sentence(reference: ModelReference) -> None:
    result = patching_stages.patterns(job(reference, "paper"))
    clean, abc = setting.settle(job(reference, "paper")).pair(FEW.search)
    plain = Plain(reference)
    for row in range(FEW.search):
        before = plain.difference(clean, row)
        patterns = plain.run(row_of(abc, row), output_attentions=True).attentions
        z, values = plain.z(row_of(clean, row)), plain.values(row_of(clean, row))
        for layer in range(N_LAYERS):
            new = z[layer].clone()
            new[0, -1] = torch.einsum("hk,khd->hd", patterns[layer][0, :, -1], values[layer])
            for head in range(N_HEADS):
                with plain.z_edited({layer: put(new, [-1], head)}):
                    after = plain.difference(clean, row)
                assert result["effects"][row, layer, head] == pytest.approx(after - before, abs=2e-4)


def test_attention_and_projection(reference: ModelReference) -> None:
    result = head_stages.attention(job(reference, "paper"))
    clean = setting.settle(job(reference, "paper")).clean(FEW.search)
    plain = Plain(reference)
    norm, unembedding = plain.final_norm(), plain.network.get_output_embeddings().weight.detach()
    for row in range(FEW.search):
        patterns = plain.run(row_of(clean, row), output_attentions=True).attentions
        z = plain.z(row_of(clean, row))
        at = [place(clean, row, word) for word in WORDS]
        close(result["uniform"][row], [1 / (place + 1) for place in at], atol=1e-7)
        for layer in range(N_LAYERS):
            expected = patterns[layer][0][:, at][..., at]
            close(result["attention"][row, layer], expected, atol=1e-6)
            weight = plain.projection(layer).weight.detach()
            weight = weight if plain.kind == "gpt2" else weight.T
            for head in range(N_HEADS):
                written = z[layer][0, -1, head] @ weight[head * D_HEAD : (head + 1) * D_HEAD]
                written = written - written.mean() if hasattr(norm, "bias") else written
                for name, token in enumerate((clean.io[row], clean.s[row])):
                    expected = float((written * norm.weight.detach()) @ unembedding[token])
                    assert result["projection"][row, layer, head, name] == pytest.approx(expected, abs=2e-4)


def test_copying_is_the_head_read_by_the_models_own_modules(gpt2: ModelReference) -> None:
    result = head_stages.copying(job(gpt2, "paper"))
    clean = setting.settle(job(gpt2, "paper")).clean(FEW.copied)
    plain = Plain(gpt2)
    width, hits = N_HEADS * D_HEAD, 0.0
    for row in range(FEW.copied):
        streams = plain.stream(1, row_of(clean, row))[0]
        for at, (word, token) in enumerate((("IO", clean.io[row]), ("S1", clean.s[row]), ("S2", clean.s[row]))):
            stream = streams[place(clean, row, word)]
            for layer in range(N_LAYERS):
                block = plain.layer(layer)
                with torch.no_grad():
                    values = block.attn.c_attn(block.ln_1(stream[None]))[0, 2 * width :].view(N_HEADS, D_HEAD)
                    for head in range(N_HEADS):
                        output = values[head] @ block.attn.c_proj.weight[head * D_HEAD : (head + 1) * D_HEAD]
                        for name, sign in (("top", 1), ("bottom", -1)):
                            logits = plain.network.lm_head(plain.final_norm()(sign * output))
                            expected = float(int(token) in logits.topk(5).indices.tolist())
                            assert result[name][row, at, layer, head] == expected
                            hits += expected
    assert 0 < hits < 2 * FEW.copied * 3 * N_LAYERS * N_HEADS


def test_copying_reads_grouped_values(tmp_path: Path) -> None:
    """On Llama, whose query heads 0, 1 and 2, 3 share their values."""
    llama = write(tmp_path, "llama")
    result = head_stages.copying(job(llama, "tiny"))
    clean = setting.settle(job(llama, "tiny")).clean(FEW.copied)
    plain = Plain(llama)
    for row in range(FEW.copied):
        streams = plain.stream(1, row_of(clean, row))[0]
        stream = streams[place(clean, row, "IO")]
        for layer in range(N_LAYERS):
            attention = plain.layer(layer).self_attn
            with torch.no_grad():
                values = attention.v_proj(plain.layer(layer).input_layernorm(stream)).view(2, D_HEAD)
                for head in range(N_HEADS):
                    weight = attention.o_proj.weight[:, head * D_HEAD : (head + 1) * D_HEAD]
                    logits = plain.network.lm_head(plain.final_norm()(weight @ values[head // 2]))
                    expected = float(int(clean.io[row]) in logits.topk(5).indices.tolist())
                    assert result["top"][row, 0, layer, head] == expected


def test_early_heads_on_repeated_tokens(reference: ModelReference) -> None:
    result = head_stages.early(job(reference, "tiny"))
    model = setting.settle(job(reference, "tiny")).model
    length, start = FEW.segment, 0 if model.bos is None else 1
    assert result.facts["length"] == length
    import circuits

    tokens = circuits.repeated_random_tokens(FEW.repeated, length, model.d_vocab, seed=0, bos=model.bos)
    for row in range(FEW.repeated):
        patterns = Plain(reference).run(tokens[row : row + 1], output_attentions=True).attentions
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                pattern = patterns[layer][0, head]
                second = range(start + length, start + 2 * length)
                expected = {
                    "previous_token": np.mean([float(pattern[q, q - 1]) for q in range(1, len(pattern))]),
                    "duplicate_token": np.mean([float(pattern[q, q - length]) for q in second]),
                    "induction": np.mean([float(pattern[q, q - length + 1]) for q in second]),
                }
                for name, value in expected.items():
                    assert result[name][row, layer, head] == pytest.approx(value, abs=1e-5)


def test_every_result_can_be_stored(gpt2: ModelReference) -> None:
    for stage in (performance_stages.performance, patching_stages.patterns, head_stages.copying):
        result: Result = stage(job(gpt2, "tiny"))
        assert all(array.dtype == np.float32 for array in result.arrays.values())

"""The map of prefix-matching scores, head by head, with the attention patterns of one prompt behind it."""

from __future__ import annotations

from replications.induction_heads.claims import TWO, model_of

from reprise import Page, Results
from reprise.pages import head_map_page


def head_map(results: Results) -> Page | None:
    """Every head's prefix-matching score; a click opens its attention on random tokens and their repetition

    The two-layer model. Scores are means over all sequences; the patterns are those of one of them, up to the end of
    the first repetition. An induction head shows as a stripe below the diagonal in the second half: there it looks at
    the token after the earlier copy of the present one. A head of the first layer with a line right under the diagonal
    looks at the previous token.
    """
    scored, shown = model_of(results, "repeated", TWO), model_of(results, "one_prompt", TWO)
    if scored is None or shown is None:
        return None
    heads = [(int(layer), int(head)) for layer, head in shown["heads"]]
    return head_map_page(
        scored["prefix_matching"].mean(axis=0),
        "Prefix-matching score (share of attention)",
        patterns=dict(zip(heads, shown["patterns"], strict=True)),
        tokens=shown.facts["tokens"],
    )

"""Mathematics as MathML, written when the site is built: nothing is loaded from elsewhere, and no script has to run.

Docutils translates the LaTeX; every current browser draws MathML by itself.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)

# Docutils puts the subscript of a letter with an accent below the letter, as it does for a sum.
ACCENT = re.compile(
    r'<munderover>\s*(<mi[^>]*>[^<]*</mi>)((?:(?!</?munderover).)*?)<mo stretchy="false">([~ˆˉ])</mo>\s*</munderover>',
    re.DOTALL,
)
AS_ACCENT = r'<msub><mover accent="true">\1<mo stretchy="false">\3</mo></mover>\2</msub>'


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(translated(node, as_block=False))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f'<div class="equation">{translated(node, as_block=True)}</div>')
    raise nodes.SkipNode


def translated(node: nodes.Element, *, as_block: bool) -> str:
    """The node's LaTeX as MathML; what Docutils does not know is a warning, and shown as it is written."""
    try:
        return ACCENT.sub(AS_ACCENT, str(tex2mathml(node.astext(), as_block=as_block)))
    except MathError as error:
        logger.warning("%s in %r: write it in other LaTeX", error, node.astext()[:60], location=node)
        return f"<code>{escape(node.astext())}</code>"

"""How a prompt is written around a task's words, as data.

    demonstration = before + input + between + " " + output + after
    query         = before + input + between
    prompt        = instructions + demonstrations + query,        answer = " " + output

The blank belongs to the answer, since GPT-2's tokenizer and its kin have it in the word's token. The paper's template
is "Q: x\\nA: y" with an empty line after it (Todd et al. 2024); its portability test uses others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from function_vectors.errors import TaskError
from function_vectors.tasks import Pair


@dataclass(frozen=True)
class Template:
    """The fixed text of a prompt."""

    name: str
    instructions: str
    before: str
    between: str
    after: str

    def demonstration(self, pair: Pair) -> str:
        """A pair with its answer."""
        return f"{self.query(pair)} {pair.output}{self.after}"

    def query(self, pair: Pair) -> str:
        """A pair without its answer."""
        return f"{self.before}{pair.input}{self.between}"


def load_templates(path: Path) -> tuple[Template, ...]:
    """The templates of a file: a JSON list of objects with the keys of `Template`, all text.

    Raises:
        TaskError: naming the file and the template, for what is no such list, a key that is missing or unknown, a name
            that stands twice, or a `between` that is empty or ends in a blank.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; expected a JSON list of templates") from None
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}:{error.lineno}: not JSON ({error.msg}); mend the file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: cannot be read ({error}); expected a JSON list of templates in UTF-8") from error
    if not isinstance(listed, list) or not listed:
        raise TaskError(f"{path}: expected a list of at least one template; write [{{...}}, {{...}}]")
    templates = tuple(_template(f"{path}: template {number}", item) for number, item in enumerate(listed, start=1))
    names = [template.name for template in templates]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise TaskError(f"{path}: two templates are named {repeated[0]!r}; rename one")
    return templates


def _template(where: str, item: object) -> Template:
    keys = [field.name for field in fields(Template)]
    if not isinstance(item, dict) or item.keys() != set(keys) or not all(isinstance(item[key], str) for key in keys):
        found = sorted(item) if isinstance(item, dict) else type(item).__name__
        raise TaskError(f"{where}: expected the keys {', '.join(keys)}, all text; found {found}")
    template = Template(**{key: item[key] for key in keys})
    if template.between != template.between.rstrip() or not template.between:
        raise TaskError(
            f"{where} ({template.name}): between is {template.between!r}, expected text that does not end in a blank: "
            f"the blank before the answer belongs to the answer; remove it"
        )
    return template

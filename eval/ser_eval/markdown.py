"""The Markdown of our own reports as HTML: headings, lists, tables, pictures, emphasis and code, and nothing else.

Everything is escaped first, so that a name from a spec cannot become markup.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

FOLDED = ("Tables", "Further tables")
"""Sections that start closed; they are long."""

_IMAGE = re.compile(r"^!\[([^\]]*)\]\(([^)\s]+)\)$")
_HEADING = re.compile(r"^(#{1,4}) (.+)$")
_ROW = re.compile(r"^\|.*\|$")
_CELLS = re.compile(r"(?<!\\)\|")


def to_html(text: str, *, folder: Path, level: int = 3) -> str:
    """A report as an HTML fragment; pictures become data URIs.

    Args:
        text: the Markdown; its first heading gets `level`
        folder: where its pictures lie; one that is not there is left out
        level: of the highest heading, 1 to 6
    """
    parts: list[str] = []
    lines, at, folded = text.splitlines(), 0, False
    while at < len(lines):
        line = lines[at]
        heading = _HEADING.match(line)
        end = at + 1
        if heading:
            depth, title = len(heading[1]), heading[2].strip()
            if folded and depth <= 2:
                parts.append("</details>")
                folded = False
            if title in FOLDED and depth == 2:
                parts.append(f"<details><summary>{_inline(title)}</summary>")
                folded = True
            else:
                size = min(6, level + depth - 1)
                parts.append(f"<h{size}>{_inline(title)}</h{size}>")
        elif _ROW.match(line):
            while end < len(lines) and _ROW.match(lines[end]):
                end += 1
            parts.append(_table(lines[at:end]))
        elif line.startswith("- "):
            while end < len(lines) and lines[end].startswith("- "):
                end += 1
            items = "".join(f"<li>{_inline(item[2:])}</li>" for item in lines[at:end])
            parts.append(f"<ul>{items}</ul>")
        elif image := _IMAGE.match(line):
            while end < len(lines) and _IMAGE.match(lines[end]):
                end += 1
            found = [image, *(match for item in lines[at + 1 : end] if (match := _IMAGE.match(item)))]
            figures = "".join(_figure(folder, match[1], match[2]) for match in found)
            parts.append(f'<div class="pair">{figures}</div>' if figures else "")
        elif line.strip():
            while end < len(lines) and lines[end].strip() and not lines[end].startswith(("|", "- ", "#", "![")):
                end += 1
            parts.append(f"<p>{_inline(' '.join(lines[at:end]))}</p>")
        at = end
    if folded:
        parts.append("</details>")
    return "\n".join(part for part in parts if part)


def _table(lines: list[str]) -> str:
    """A table; its second line says which columns are numbers."""
    cells = [_split(line) for line in lines]
    head, rule, body = cells[0], cells[1] if len(cells) > 1 else [], cells[2:]
    numeric = [index < len(rule) and rule[index].strip().endswith(":") for index in range(len(head))]

    def row(values: list[str], tag: str) -> str:
        kinds = [' class="n"' if number else "" for number in numeric]
        told = [f"<{tag}{kind}>{_inline(value)}</{tag}>" for value, kind in zip(values, kinds, strict=False)]
        return f"<tr>{''.join(told)}</tr>"

    rows = "".join(row(values, "td") for values in body)
    named = [name.replace("_", " ") for name in head]
    return f'<div class="scroll"><table><thead>{row(named, "th")}</thead><tbody>{rows}</tbody></table></div>'


def _split(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELLS.split(line.strip())[1:-1]]


def _figure(folder: Path, name: str, target: str) -> str:
    file = folder / target
    if file.suffix != ".png" or file.resolve().parent != folder.resolve() or not file.is_file():
        return ""
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    title = html.escape(name)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{title}"></figure>'


def _inline(text: str) -> str:
    """Emphasis, code and links within a line; a link keeps its words only, since the page stands alone."""
    told = html.escape(text, quote=True)
    told = re.sub(r"`([^`]+)`", r"<code>\1</code>", told)
    told = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", told)
    return re.sub(r"(?<!!)\[([^\]]+)\]\([^)\s]+\)", r"\1", told)

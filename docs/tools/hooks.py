# SPDX-License-Identifier: Apache-2.0
"""What MkDocs does not do by itself: pages from outside docs/, links of the repository, maths without a script."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "SECURITY.md": "SECURITY.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/peers/README.md": "peers.md",
}
OUTSIDE |= {
    report.relative_to(ROOT).as_posix(): f"reports/{report.parent.name}.html"
    for report in (ROOT / "benchmarks" / "results").glob("*/report.html")
}
"""Files of the repository that are on the site too, and where; links to them lead there."""
_INSIDE = {source: target for target, source in OUTSIDE.items()} | {"README.md": "index.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to files of the repository to their pages; those to files that are not on the site become text."""
    source = _INSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def leads(match: re.Match[str]) -> str:
        image, text, path, anchor = match.groups()
        target = os.path.normpath(os.path.join(os.path.dirname(source), path))
        inside = "index.md" if target == "README.md" else OUTSIDE.get(target, "")
        if target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        if inside or not (ROOT / target).exists():  # MkDocs complains of what is nowhere
            start = os.path.dirname(page.file.src_uri) or "."
            return f"{image}[{text}]({os.path.relpath(inside or path, start)}{anchor or ''})"
        return f"{text} (`{target}`)" if text != target else f"`{target}`"

    return _LINK.sub(leads, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn `$...$` and `$$...$$` into MathML, which browsers draw by themselves."""

    def maths(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        return str(latex2mathml.converter.convert(html.unescape(match[3]).strip(), display=display))

    return _MATHS.sub(maths, content)

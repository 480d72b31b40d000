# SPDX-License-Identifier: Apache-2.0
"""The documentation: generated pages are up to date; the site builds strictly and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from browser import needs_browser, screenshot

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["config.md", "cli.md", "results.md"])
def test_a_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails: `make docs`, and commit what it changed."""
    monkeypatch.setenv("COLUMNS", "94")  # restored afterwards
    assert (DOCS / name).read_text("utf-8") == tool("generate").PAGES[name]()


@pytest.mark.parametrize(
    ("page", "script", "render"),
    [
        ("docs/families.md", "benchmarks/families.py", "page"),
        ("docs/privacy-baselines.md", "benchmarks/dp.py", "render"),
        ("benchmarks/peers/README.md", "benchmarks/peers/screen.py", "page"),
    ],
)
def test_a_page_is_what_its_script_makes_of_the_records(
    page: str, script: str, render: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend((ROOT / script).parent)  # scripts import what lies beside them
    assert (ROOT / page).read_text("utf-8") == getattr(importlib.import_module(Path(script).stem), render)()


def test_the_drawing_is_the_one_its_script_makes() -> None:
    assert (DOCS / "images" / "round.svg").read_text("utf-8") == tool("pictures").round_picture()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make setup installs it")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    done = subprocess.run([*command, "--site-dir", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in (*DOCS.glob("*.md"), ROOT / "SECURITY.md"):
        assert (site / f"{page.stem}.html").is_file()
    loaded = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(https?:)?//', re.IGNORECASE)
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), style


def test_maths_is_drawn_without_a_script() -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make setup installs it")
    page = (
        '<p><span class="arithmatex">\\(W_i \\leftarrow a &lt; b\\)</span></p><div class="arithmatex">\\[x^2\\]</div>'
    )
    drawn = tool("hooks").on_page_content(page)
    assert drawn.count("<math") == 2
    assert 'display="block"' in drawn
    assert "arithmatex" not in drawn


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@needs_browser
def test_a_browser_shows_it_without_a_complaint(site: Path, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    for page, width, dark in (("index", 1280, False), ("results", 390, True)):
        picture = tmp_path / f"{page}.png"
        assert screenshot(f"http://127.0.0.1:{server.server_port}/{page}.html", width, 1400, picture, dark=dark) == []
        assert picture.read_bytes().startswith(b"\x89PNG")
    server.shutdown()
    server.server_close()

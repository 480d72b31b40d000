# SPDX-License-Identifier: Apache-2.0
"""A real browser shows the report at the widths of a desk and a phone, in light and dark, and complains of nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from browser import needs_browser, screenshot

pytestmark = needs_browser


def size_of(picture: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width, height


@pytest.fixture
def page(comparison: tuple[Path, str], tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(comparison[1], "utf-8")
    return path


def test_a_desk_and_a_phone_in_light_and_dark_show_it_without_a_complaint(page: Path, tmp_path: Path) -> None:
    pictures = []
    for width, dark in ((1280, False), (390, False), (1280, True)):
        pictures.append(tmp_path / f"{width}-{dark}.png")
        assert screenshot(page.as_uri(), width, 2400, pictures[-1], dark=dark) == []
        assert size_of(pictures[-1]) == (width, 2400)
    assert pictures[0].read_bytes() != pictures[2].read_bytes()


def test_a_page_that_breaks_its_policy_is_heard(page: Path, tmp_path: Path) -> None:
    page.write_text(page.read_text("utf-8").replace("</body>", "<script>1</script></body>"), "utf-8")
    complaints = screenshot(page.as_uri(), 390, 2400, tmp_path / "bad.png")
    assert any("Content Security Policy" in line for line in complaints)

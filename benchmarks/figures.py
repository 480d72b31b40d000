# SPDX-License-Identifier: Apache-2.0
"""The figure of a recorded comparison, its report, and a picture of the report as a browser shows it.

python benchmarks/figures.py benchmarks/results/multi30k docs/images
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from trustformer.experiment.record import RunDirectory
from trustformer.reports.collect import collect
from trustformer.reports.figures import write_files
from trustformer.reports.headline import draw_headline
from trustformer.reports.page import render
from trustformer.reports.summary import summarise

WIDTH, HEIGHT = 1280, 1560
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def picture(page: Path, target: Path) -> None:
    """Take a picture of the top of a page; raises `SystemExit` where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"error: none of {', '.join(BROWSERS)} is installed\nhint: the picture alone is missing")
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "page.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={taken}"]
        subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)
        # A page of few colours: a palette is a third of the size and looks the same.
        Image.open(taken).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


def main(results: Path, images: Path) -> None:
    """Write `bleu.svg` and `report.png` to images, `report.html` to the results."""
    runs = collect([results])
    rows = summarise([run.result for run in runs])
    write_files(lambda theme, narrow: draw_headline(rows, theme, narrow), RunDirectory(images), "bleu", ["svg"])
    RunDirectory(results).write("report.html", render(runs).encode())
    picture(results / "report.html", images / "report.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

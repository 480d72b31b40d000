# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the docs: one by hand, two from what the exchange's own code does.

python docs/tools/pictures.py docs/images
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from trustformer.codec.drift import DriftCodec
from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import specs_of
from trustformer.experiment.record import RunDirectory
from trustformer.message import Codebook
from trustformer.reports.figures import FONT, LIGHT, Theme, new_figure, write_files
from trustformer.vq import decode, encode
from trustformer.vq.kmeans import assign, kmeans

SEED = 1
CLIENTS = 3
EXCHANGES = 6
CLIENT, HOST, ENCLAVE = LIGHT.series[2], LIGHT.series[0], LIGHT.series[1]


def round_picture() -> str:
    """One round: what happens at a client, what the host carries, what the enclave does."""
    parts = [_box(20, 20, 290, 420, CLIENT), _box(390, 20, 120, 420, HOST), _box(590, 20, 290, 420, ENCLAVE)]
    parts += [
        *_words(165, 50, CLIENT, 15, "client i", bold=True),
        *_words(450, 50, HOST, 15, "host", bold=True),
        *_words(735, 50, ENCLAVE, 15, "enclave", bold=True),
        *_words(450, 254, LIGHT.soft, 12, "carries, stores", "cannot read", "sees sizes, times"),
        *_words(165, 92, LIGHT.ink, 13, "verifies the quote against its policy"),
        *_words(735, 92, LIGHT.ink, 13, "quote: program and keys"),
        *_words(165, 146, LIGHT.ink, 13, "trains Wᵢ on its own text", "drift  xᵢ = Wᵢ − G"),
        *_words(165, 206, LIGHT.ink, 13, "k-means:  eᵢ = E(xᵢ)", "stores, then seals it"),
        *_words(735, 206, LIGHT.ink, 13, "opens and checks", "u = Σ pᵢ decode(eᵢ) + c s"),
        *_words(735, 276, LIGHT.ink, 13, "k-means:  ē = E′(u)", "s ← u − decode(ē)"),
        *_words(165, 350, LIGHT.ink, 13, "G ← G + decode(ē)", "Wᵢ ← Wᵢ + decode(ē) − decode(eᵢ)"),
        *_words(165, 408, LIGHT.soft, 12, "what eᵢ could not express stays in Wᵢ"),
        *_words(735, 350, LIGHT.ink, 13, "signs a manifest, seals ē"),
    ]
    for y, forward, words in ((88, False, "quote"), (215, True, "eᵢ sealed"), (355, False, "ē sealed")):
        start, end = (312, 588) if forward else (588, 312)
        parts.append(f'<path d="M{start} {y}H{end}" stroke="{LIGHT.ink}" stroke-width="1.6" marker-end="url(#tip)"/>')
        parts += _words(450, y - 8, LIGHT.ink, 12, words)
    shape = '<path d="M0 0l9 4.5-9 4.5z"/>'
    tip = f'<marker id="tip" markerWidth="9" markerHeight="9" refX="8" refY="4.5" orient="auto">{shape}</marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 460" font-family="{FONT}, sans-serif" role="img">'
    title = "<title>One round: a client codes its drift and seals it, the host carries, the enclave combines</title>"
    ground = f'<rect width="900" height="460" fill="{LIGHT.ground}"/>'
    return "\n".join([head, title, f"<defs>{tip}</defs>", ground, *parts, "</svg>", ""])


def _box(x: int, y: int, width: int, height: int, colour: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" '
        f'fill="{colour}" fill-opacity="0.07" stroke="{colour}" stroke-width="1.6"/>'
    )


def _words(x: int, y: int, colour: str, size: int, *lines: str, bold: bool = False) -> list[str]:
    form = f'font-size="{size}" fill="{colour}" text-anchor="middle"' + (' font-weight="bold"' if bold else "")
    return [f'<text x="{x}" y="{y + 20 * number}" {form}>{line}</text>' for number, line in enumerate(lines)]


def codebook(theme: Theme, narrow: bool) -> Figure:
    """Blocks of two entries of a drift, and the centroids that stand for them."""
    rng = np.random.default_rng(SEED)
    points = rng.standard_t(4, (1500, 2)).astype(np.float32) @ np.array([[1, 0.55], [0, 0.8]], np.float32)
    points = points[np.abs(points).max(1) < 4.5]
    centroids = kmeans(points, 16, rng)
    nearest = centroids[assign(points, centroids)]
    kept = 1 - ((points - nearest) ** 2).sum() / (points**2).sum()
    figure, axes = new_figure(640, 480)
    shown = 240
    axes.add_collection(LineCollection(np.stack([points, nearest], 1)[:shown], colors=theme.rule, linewidths=0.8))
    axes.scatter(*points[:shown].T, s=7, color=theme.series[0], alpha=0.7, linewidth=0, zorder=2)
    axes.scatter(*centroids.T, s=60, marker="D", color=theme.series[2], zorder=3)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlim(-4.6, 4.6)
    axes.set_ylim(-4.2, 4.2)
    axes.set_xlabel("first entry of a block")
    axes.set_ylabel("second entry")
    axes.set_title(
        f"Blocks of d = 2 entries, K = 16 centroids: {100 * kept:.0f} % of the energy travels",
        color=theme.ink,
        fontsize=12,
    )
    return figure


def contraction(theme: Theme, narrow: bool) -> Figure:
    """Distance of clients from G over exchanges without training, beside what the first exchange predicts."""
    found, predicted = distances()
    figure, axes = new_figure(640, 380)
    steps = range(len(found))
    axes.plot(steps, predicted, color=theme.series[0], linestyle=(0, (5, 3)))
    axes.plot(steps, found, color=theme.series[2], marker="o")
    axes.set_yscale("log")
    axes.set_yticks([1, 0.3, 0.1, 0.03, 0.01], ["100 %", "30 %", "10 %", "3 %", "1 %"])
    axes.minorticks_off()
    axes.set_xlabel("exchanges in a row, without training")
    axes.set_ylabel("distance of a client from G")
    axes.annotate(
        "measured",
        (len(found) - 1, found[-1]),
        (-24, 26),
        textcoords="offset points",
        color=theme.series[2],
        ha="right",
    )
    axes.annotate(
        "what the first predicts",
        (3, predicted[3]),
        (-8, -16),
        textcoords="offset points",
        color=theme.soft,
        ha="right",
    )
    return figure


def distances() -> tuple[list[float], list[float]]:
    """Distance to G after each exchange, as a share of the first, and what a constant captured share would give."""
    rng = np.random.default_rng(SEED)
    common = {"W": np.zeros((512, 512), np.float32)}
    weights = [{"W": rng.standard_normal((512, 512)).astype(np.float32)} for _ in range(CLIENTS)]
    layout = rated_layout(specs_of(common), Codebook(8, 256))
    codec = DriftCodec(layout, layout)
    rest = np.zeros((512, 512), np.float32)
    found = [_distance(weights, common)]
    for number in range(EXCHANGES):
        bodies = [codec.encode(own, common, np.random.default_rng([SEED, number])) for own in weights]
        total = np.mean([decode(layout, body)["W"] for body in bodies], axis=0) + rest
        answer = encode(layout, {"W": total}, np.random.default_rng([SEED, number, 1]))
        rest = total - decode(layout, answer)["W"]
        adopted = [codec.adopt(own, common, answer, body) for own, body in zip(weights, bodies, strict=True)]
        weights, common = [own for own, _ in adopted], adopted[0][1]
        found.append(_distance(weights, common))
    shares = [value / found[0] for value in found]
    return shares, [shares[1] ** number for number in range(EXCHANGES + 1)]


def _distance(weights: list[dict[str, np.ndarray]], common: dict[str, np.ndarray]) -> float:
    return float(np.mean([np.linalg.norm(own["W"] - common["W"]) for own in weights]))


if __name__ == "__main__":
    images = RunDirectory(Path(sys.argv[1]))
    for draw in (codebook, contraction):
        write_files(draw, images, draw.__name__, ["svg"])
    images.write("round.svg", round_picture().encode())

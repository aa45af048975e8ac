"""v2 Fig. 7 as a picture: which block of the image a token of the autoencoder has to predict.

Letters (CONTRIBUTING.md): H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from lcmae_core.viewer.figures.basic import Images
from lcmae_core.viewer.figures.look import looks
from lcmae_core.viewer.figures.paper import Picture


def block_targets(
    image: Images, patch: int, tokens: Mapping[str, tuple[int, int]], targets: Mapping[str, Sequence[Images]]
) -> Picture:
    """A row for each token (its row and column on the grid): the image (H, W, 3) with its patch filled and its blocks
    outlined, then each block that it predicts; `targets` holds those by token, from the smallest block on."""
    count = len(next(iter(targets.values())))
    names = [f"AE({target.shape[0]})" for target in next(iter(targets.values()))]
    inks = [look.colour for look in looks(names).values()]
    figure = Picture(figsize=(1.6 * (count + 1) + 0.8, 1.65 * len(tokens) + 0.2), layout="constrained")
    axes = figure.subplots(len(tokens), count + 1, squeeze=False)
    for line, (name, place) in zip(axes, tokens.items()):
        line[0].imshow(np.clip(image, 0, 1), extent=(0, image.shape[1], image.shape[0], 0))
        line[0].set_ylabel(name, fontsize=9)
        _outlines(line[0], image.shape, patch, place, [t.shape[0] for t in targets[name]], inks)
        for axis, target in zip(line[1:], targets[name]):
            axis.imshow(np.clip(target, 0, 1), interpolation="nearest")
    for axis, title in zip(axes[0][1:], names):
        axis.set_title(title, fontsize=9)
    for index, axis in enumerate(axes.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_color("0.7" if index % (count + 1) == 0 else inks[index % (count + 1) - 1])
            side.set_linewidth(2)
    return figure


def _outlines(
    axis: Any, shape: tuple[int, ...], patch: int, place: tuple[int, int], sides: Sequence[int], inks: Sequence[str]
) -> None:
    centre = [(p + 0.5) * patch for p in place]  # row, column in pixels
    for index, side in enumerate(sides):
        corner = (centre[1] - side / 2, centre[0] - side / 2)
        style: dict[str, Any] = {"ec": inks[index], "fill": index == 0, "fc": inks[0], "alpha": 0.9, "lw": 1.6}
        axis.add_patch(Rectangle(corner, side, side, **style))
    reach = max(sides) / 2  # show what lies beyond the border: it is reflected
    axis.set_xlim(min(0, centre[1] - reach) - 1, max(shape[1], centre[1] + reach) + 1)
    axis.set_ylim(max(shape[0], centre[0] + reach) + 1, min(0, centre[0] - reach) - 1)

"""What tests of figures look at."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def axes(figure: Figure) -> list[Axes]:
    """The panels of a figure, without its colour bars."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]

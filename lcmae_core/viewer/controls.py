"""Live controls beside the static figure that headless runs keep."""

import inspect
import os
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure


def live(draw: Callable[..., Figure], **choices: Any) -> Any:
    """Controls that redraw `draw(**choices)`: a slider for (low, high[, step]), a menu for a list.

    They start at the defaults of `draw`, where the static figure stands. Nothing is shown where nobody can turn a knob
    (LCMAE_HEADLESS is set).
    """
    if os.environ.get("LCMAE_HEADLESS"):
        return None
    import ipywidgets
    from IPython.display import display

    start = {name: parameter.default for name, parameter in inspect.signature(draw).parameters.items()}
    controls = {name: _control(name, choice, start[name]) for name, choice in choices.items()}
    picture = ipywidgets.interactive_output(lambda **values: display(draw(**values)), controls)
    return ipywidgets.VBox([ipywidgets.HBox(list(controls.values())), picture])


def _control(name: str, choice: Any, start: Any) -> Any:
    import ipywidgets

    label = name.replace("_", " ")
    if not isinstance(choice, tuple):
        return ipywidgets.Dropdown(options=list(choice), value=start, description=label)
    low, high, *step = choice
    kind = ipywidgets.FloatSlider if any(isinstance(v, float) for v in choice) else ipywidgets.IntSlider
    return kind(
        value=start,
        min=low,
        max=high,
        description=label,
        continuous_update=False,
        **({"step": step[0]} if step else {}),
    )

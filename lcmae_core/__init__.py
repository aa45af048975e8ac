"""Masked autoencoders from a local contrastive perspective: models, losses, training and analyses."""

import os
import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"

CALM = "torch" not in sys.modules
"""Whether torch's threads sleep soon where they wait for work, which must be said before torch is loaded.

Of itself a thread of GNU's OpenMP looks for work 300 000 times before it sleeps. Where another process wants the same
cores, that time is taken from the very thread it waits for: on two busy cores a step of `quick` with two threads took
690 to 950 ms, 120 to 130 with the count below, and 140 to 180 with one thread."""
if CALM and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}:
    os.environ["GOMP_SPINCOUNT"] = "1000"

MOVED = {
    "analysis.experiment": "studies.latents",
    "arguments": "cli.parser",
    "claims": "studies.claims",
    "doctor": "cli.doctor",
    "jobs": "studies.trials",
    "judge": "studies.judge",
    "levels": "studies.measures_hlv",
    "looks": "studies.measures_attention",
    "measures": "studies.measures",
    "published": "studies.published",
    "redraw": "studies.redraw",
    "scoreboard": "studies.scoreboard",
    "specimen": "studies.specimen",
    "subjects": "studies.zoo",
    "tables": "studies.tables",
    "training.evaluate": "training.held_out",
    "training.methods": "training.objectives",
    "training.objective": "training.masked",
    "training.watch": "training.guards",
    "vectors": "studies.measures_vectors",
    "viewer.blocks": "viewer.figures.blocks",
    "viewer.board": "viewer.figures.board",
    "viewer.collapse": "viewer.figures.collapse",
    "viewer.layers": "viewer.figures.layers",
    "viewer.levels": "viewer.figures.levels",
    "viewer.pairs": "viewer.figures.pairs",
    "viewer.trees": "viewer.figures.trees",
}
"""Modules that older notebooks import, and where they are now."""


def _now(name: str) -> str | None:
    """Where a module of an old path is now, with what lies below it; None for every other name."""
    package, _, old = name.partition(".")
    if package == __name__:
        for before, after in MOVED.items():
            if old == before or old.startswith(f"{before}."):
                return f"{package}.{after}{old.removeprefix(before)}"
    return None


class _Moved(MetaPathFinder, Loader):
    """Finds a module by its old path: the same module object, and a warning that says the new path."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of an old path below this package; None for every other name."""
        return ModuleSpec(name, self) if _now(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at its new path."""
        new = str(_now(spec.name))
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It is loaded already; its spec stays its own."""
        module.__spec__ = self._spec


sys.meta_path.insert(0, _Moved())

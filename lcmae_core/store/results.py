"""The frame of a notebook: its settings from four parameters, and the file in which it records its numbers."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcmae_core.config import LcmaeError, Settings, profile, replace
from lcmae_core.config.profiles import IN_NOTEBOOK, profile_of
from lcmae_core.config.resolve import Asked, project_root
from lcmae_core.store.files import write_json
from lcmae_core.store.machine import REPOSITORY, leave_room, pick_device, provenance, writable_folder
from lcmae_core.store.stopping import say_interrupts


@dataclass(frozen=True)
class Measured:
    """A number with what a reader needs to judge it: unit, spread, count, the paper's value, and a caveat."""

    value: float | str
    unit: str = ""
    sd: float | None = None
    n: int | None = None
    paper: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Notebook:
    """What every notebook starts with.

    profile: smoke | quick | desk | lab | paper, by default $LCMAE_PROFILE, else quick. data: a source string, by
    default $LCMAE_DATA, else the profile's own. out: by default $LCMAE_OUT, else outputs/<profile>. train: whether
    runs that are missing are trained here, by default at smoke and quick alone.

    Raises:
        LcmaeError: an unknown profile, a value out of range, a folder that cannot be written.
    """

    number: str
    title: str
    profile: str | None = None
    data: str | None = None
    seed: int = 0
    out: str | None = None
    on_unreadable: str = "stop"
    train: bool | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        say_interrupts()
        leave_room()

    @property
    def _asked(self) -> Asked:
        """The parameters cell; a relative folder in it lies in the project, wherever the kernel was started."""
        cell = {"profile": self.profile, "data": self.data, "seed": self.seed, "out": self.out}
        return Asked(parameters=cell, base=project_root())

    @property
    def profile_name(self) -> str:
        """The profile in force."""
        return self._asked.profile

    @property
    def folder(self) -> Path:
        """The output folder, absolute."""
        return writable_folder(self._asked.out)

    def settings(self, **changes: Any) -> Settings:
        """The profile's settings with this notebook's data, seed and folder, then `changes` by leaf name."""
        base = profile(self.profile_name)
        return replace(base, self._common(self._asked.data or base.data.source) | changes)

    def _common(self, source: str) -> dict[str, Any]:
        folder, seed = str(self.folder), self._asked.seed
        asked = {"source": source, "seed": seed, "out": folder, "on_unreadable": self.on_unreadable}
        return asked | {"train": self.trains}

    @property
    def trains(self) -> bool:
        """Whether what is missing is trained here; elsewhere it is refused by name (`NotTrainedError`).

        Raises:
            LcmaeError: `train` is neither True, False nor None.
        """
        if self.train not in (None, True, False):
            raise LcmaeError(f"train: got {self.train!r}, expected True, False or None")
        return self.profile_name in IN_NOTEBOOK if self.train is None else bool(self.train)

    @property
    def headless(self) -> bool:
        """Whether nobody is there to turn a knob: papermill, nbval or a batch job runs the notebook."""
        return bool(os.environ.get("LCMAE_HEADLESS"))

    @property
    def trained(self) -> bool:
        """Whether the profile trains long enough for checks of quality to apply (from quick on); those of
        quick are of its own photographs and say nothing of others."""
        one = profile_of(self.profile_name)
        return one.long_enough and (not one.in_notebook or self._own_data)

    @property
    def as_stored(self) -> bool:
        """Whether profile, seed and data are those with which the notebooks come executed: what was seen there may be
        said of no other run."""
        return profile_of(self.profile_name).stored and self.seed == 0 and self._own_data

    @property
    def _own_data(self) -> bool:
        own = profile(self.profile_name).data.source
        return (self._asked.data or own) == own

    def record(self, **values: Measured | float | str) -> None:
        """Write <out>/results/<number>.json with the values and where they come from, and say so."""
        settings = self.settings()
        content = {
            "notebook": self.number,
            "title": self.title,
            "profile": self.profile_name,
            "data": settings.data.source,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.started, 1),
            "values": {name: vars(v if isinstance(v, Measured) else Measured(v)) for name, v in values.items()},
            **provenance(pick_device(settings.runtime.device)),
        }
        path = self.folder / "results" / f"{self.number}.json"
        path.parent.mkdir(exist_ok=True)
        write_json(path, content, sealed=True)
        shown = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
        print(f"{len(values)} numbers recorded in {shown}")

"""A run: one training, named by the digest of all that affects its results, done once and shared by everybody."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from lcmae_core.config import LcmaeError, NotTrainedError, Settings, digest, parse
from lcmae_core.store.checkpoint import MANIFEST, load_tensors, remove_begun_checkpoints, save_tensors
from lcmae_core.store.files import DamagedError, read_json, remove_begun, sha256, write_json
from lcmae_core.store.history import read_history
from lcmae_core.store.kept import note_kept
from lcmae_core.store.locks import become_writer
from lcmae_core.store.machine import writable_folder

MODEL, RESULTS, HISTORY, SETTINGS = "model.safetensors", "results.json", "history.jsonl", "settings.json"
REPLACED = (MODEL, RESULTS, MANIFEST, HISTORY, "snapshots/step-*.safetensors")
"""Files that only the writer of a run replaces."""
TIMINGS = ("images_per_s", "images_per_core_s", "data_wait")
"""What a line of the history says of speed, which differs between runs that are otherwise equal."""

METHODS = {"mae": "MAE", "ae": "an autoencoder", "dino": "DINO", "supervised": "a supervised ViT",
           "siamese": "the Siamese network"}  # fmt: skip
"""Methods as a reader calls them."""
NAMED = 4
"""Missing runs that an error names."""


class RunLostError(LcmaeError):
    """The folder of a run went away while it was written: failed work, not a user's mistake."""

    exit_code = 1


def _method(settings: Settings) -> str:
    """MAE + cross-view, mask ratio 0.5, decoder average."""
    name, loss = METHODS[settings.method], settings.loss
    terms = {"MAE": loss.reconstruction, "cross-view": loss.cross_view, "in-view": loss.in_view}
    if settings.method == "mae":
        on = [term for term, weight in terms.items() if weight]
        name = " + ".join(on) + (" loss alone" if on[0] != "MAE" and len(on) == 1 else "")
    usual, parts = Settings(), [name]
    if settings.method == "mae" and settings.masking.mask_ratio != usual.masking.mask_ratio:
        parts.append(f"mask ratio {settings.masking.mask_ratio:g}")
    if settings.method == "mae" and settings.model.decoder != usual.model.decoder:
        parts.append(f"decoder {settings.model.decoder}")
    elif settings.method == "mae" and settings.model.decoder_depth != usual.model.decoder_depth:
        depth = settings.model.decoder_depth
        parts.append(f"decoder of {depth} layer{'s' * (depth != 1)}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Run:
    """A run's folder: settings.json, history.jsonl, snapshots/, checkpoints/, and at the end model.safetensors and
    results.json (whose presence says that the run is done)."""

    path: Path
    settings: Settings

    @property
    def name(self) -> str:
        """Name and digest, as the folder is called."""
        return self.path.name

    @property
    def words(self) -> str:
        """What is trained, for who watches: the method, its losses, and what differs from an ordinary MAE."""
        return f"training {_method(self.settings)}, seed {self.settings.seed}"

    @property
    def done(self) -> bool:
        """Whether the run has been trained to its end."""
        return (self.path / RESULTS).exists()

    @property
    def results(self) -> dict[str, Any]:
        """Final numbers, with device, versions, commit and date.

        Raises:
            LcmaeError: the run is not finished.
            DamagedError: the file is.
        """
        if not self.done:
            raise LcmaeError(f"run: got {self.name!r}, which is not finished, expected a finished run")
        return read_json(self.path / RESULTS)

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry for each logged step, in order, those that are damaged left out."""
        return read_history(self.path / HISTORY)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged quantity.

        Raises:
            LcmaeError: the run never logged it.
        """
        entries = [entry for entry in self.history if name in entry]
        if not entries:
            logged = sorted({key for entry in self.history for key in entry})
            raise LcmaeError(f"curve: got {name!r}, expected one of: {', '.join(logged)}")
        return [int(entry["step"]) for entry in entries], [entry[name] for entry in entries]

    @property
    def snapshots(self) -> list[int]:
        """Steps whose weights are kept: step 0 is the initialisation, the last is the trained model."""
        kept = [int(f.stem.removeprefix("step-")) for f in (self.path / "snapshots").glob("step-*.safetensors")]
        return sorted([*kept, *([self.results["steps"]] if self.done else [])])

    def weights(self, step: int | None = None) -> dict[str, Tensor]:
        """State dict at a kept step, by default the last.

        Raises:
            LcmaeError: nothing is kept at that step, or its bytes are not those that were written.
        """
        if step is None or (self.done and step == self.results["steps"]):
            return self._verified(self.path / MODEL)
        if step not in self.snapshots:
            raise LcmaeError(f"snapshot: got step {step}, expected one of: {', '.join(map(str, self.snapshots))}")
        return self._verified(self._snapshot(step))

    def keep_snapshot(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights of a step for later analysis.

        Raises:
            RunLostError: the folder was removed.
        """
        self.refuse_lost()
        save_tensors(self._snapshot(step), weights)
        self._note(self._snapshot(step))

    def finish(self, weights: dict[str, Tensor], results: dict[str, Any]) -> None:
        """Write the final weights, then the results, and drop the checkpoints that are no longer needed.

        Raises:
            RunLostError: the folder was removed: what is left of the run would look like a finished one.
        """
        self.refuse_lost()
        save_tensors(self.path / MODEL, weights)
        self._note(self.path / MODEL)
        write_json(self.path / RESULTS, results, sealed=True)
        note_kept(results.get("seconds", 0.0))
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def refuse_lost(self) -> None:
        """See whether the folder still is the one that this process writes.

        Raises:
            RunLostError: it was removed, or removed and made anew by another process.
        """
        holder = self.path / ".holder"
        if not (self.path / SETTINGS).exists():
            raise RunLostError(f"run: {str(self.path)!r} was removed while it was trained, expected it to stay")
        with suppress(OSError):
            if (who := holder.read_text().strip()) != str(os.getpid()):
                raise RunLostError(f"run: {str(self.path)!r} is written by process {who} now, expected {os.getpid()}")

    def clear(self) -> None:
        """Remove everything but the lock, to train again from the start; first the results, which say it is done."""
        (self.path / RESULTS).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    @contextmanager
    def lock(self, timeout: float = -1) -> Iterator[None]:
        """Hold the run against a second writer; one that comes later waits (`timeout` seconds, for ever by default).

        Raises:
            LcmaeError: another process still holds it after `timeout`.
            Stopped: a stop was asked for while it waited.
        """
        lock, holder = FileLock(self.path / ".lock"), self.path / ".holder"
        become_writer(lock, holder, self.name, timeout)
        try:
            holder.write_text(f"{os.getpid()}\n")
            remove_begun_checkpoints(self.path / "checkpoints")
            for name in REPLACED:
                remove_begun(self.path / name)
            yield
        except OSError:
            self.refuse_lost()  # a file that could not be written because its folder is gone
            raise
        finally:
            with suppress(OSError):
                if holder.read_text().strip() == str(os.getpid()):
                    holder.unlink()
            lock.release()

    def _note(self, file: Path) -> None:
        """Remember the sha256 of a file of weights: a flipped bit would load silently."""
        known = _manifest(self.path) | {str(file.relative_to(self.path)): sha256(file)}
        write_json(self.path / MANIFEST, known)

    def _verified(self, file: Path) -> dict[str, Tensor]:
        refuse_damaged(self.path, file, required=True)
        return load_tensors(file)

    def _snapshot(self, step: int) -> Path:
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        return folder / f"step-{step:08d}.safetensors"


def refuse_damaged(folder: Path, file: Path, required: bool = False) -> None:
    """See whether a file of weights in a run's folder has the bytes that were written.

    Weights and settings that were copied out of a run have no manifest to compare with, unless it is `required`.

    Raises:
        LcmaeError: its bytes differ from the manifest, which does not name it, or cannot be read, or is missing
            although the run is finished.
    """
    if not required and not any((folder / name).exists() for name in (MANIFEST, RESULTS)):
        return
    expected = _manifest(folder).get(str(file.relative_to(folder)))
    if not file.exists() or sha256(file) != expected:
        raise LcmaeError(f"weights: got {str(file)!r}, whose bytes differ from the run's manifest, expected them whole")


def _manifest(folder: Path) -> dict[str, str]:
    file = folder / MANIFEST
    return read_json(file) if file.exists() else {}


def open_run(settings: Settings, data_identity: str) -> Run:
    """The run of these settings on this data, its folder made if need be.

    Raises:
        LcmaeError: the output folder cannot be written.
    """
    path = run_folder(settings, data_identity)
    writable_folder(path)
    if not _readable(path / SETTINGS):
        write_json(path / SETTINGS, settings.model_dump(mode="json"), sealed=True)
    return Run(path, settings)


def _readable(file: Path) -> bool:
    """Whether a JSON file is there and whole: settings that are not, of a known run, are written anew."""
    try:
        return bool(read_json(file))
    except DamagedError:
        return False


def run_label(settings: Settings) -> str:
    """What a run is called before its seed and digest: its terms, or its method."""
    terms = [name for name in ("reconstruction", "cross_view", "in_view") if getattr(settings.loss, name) > 0]
    known = {("reconstruction",): "mae", ("reconstruction", "cross_view", "in_view"): "lcmae"}
    return known.get(tuple(terms), "+".join(terms)) if settings.method == "mae" else settings.method


def run_folder(settings: Settings, data_identity: str) -> Path:
    """Where the run lies or would lie: <out>/runs/<label>-s<seed>-<digest>."""
    name = f"{run_label(settings)}-s{settings.seed}-{digest(settings, data_identity)}"
    return writable_folder(settings.runtime.out) / "runs" / name


def refuse_untrained(missing: Sequence[str], settings: Settings) -> None:
    """Say what is missing, where `settings.runtime.train` is false.

    Raises:
        NotTrainedError: something is.
    """
    if missing and settings.runtime.train is False:
        few = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        raise NotTrainedError(
            f"{few}: not trained in {settings.runtime.out!r}, expected finished runs: lcmae study trains them, or "
            "-p train=true does it here"
        )


def load_run(path: Path | str) -> Run:
    """The run in a folder.

    Raises:
        LcmaeError: the folder holds no run.
        DamagedError: its settings cannot be read.
    """
    file = Path(path) / SETTINGS
    if not file.exists():
        raise LcmaeError(f"run: got {str(path)!r}, expected a run's folder with {SETTINGS}")
    return Run(Path(path).resolve(), parse(read_json(file)))

"""kill -9: at any step and anywhere inside a save the run goes on bit-equal, the newest whole checkpoint is loaded, and
what a killed save left does not stay. The lock of a dead process is taken over, that of a living one is waited for."""

import json
from pathlib import Path

import pytest

from lcmae_core.config import profile, replace
from lcmae_core.store.checkpoint import sha256
from tests.started import completed
from tests.studies.tiny_studies import MAE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHORT = MAE | {"steps": 12, "checkpoint_every": 2, "log_every": 1, "snapshots": 3, "cross_view": 1.0, "in_view": 1.0}

PROGRAM = """
import json, os, random, sys
import torch
torch.set_num_threads(1)
from lcmae_core.config import parse, replace
from lcmae_core.store import checkpoint
from lcmae_core.training import loop, steps
from tests.training.rank_cases import stop_at

settings, how, trials, out = parse(json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3]), sys.argv[4]

def child(place, plan=lambda: None):
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        plan()
        loop.pretrain(replace(settings, out=place))
        code = 0
    finally:
        os._exit(code)

def in_save(share, count=None):
    # what a save does to files, one after the other: opened, made, renamed, removed, flushed
    state = {"saving": False, "events": 0, "saves": 0}
    def happened(*_):
        state["events"] += state["saving"]
        if state["saving"] and share is not None and state["events"] == share and state["saves"] == 3:
            os.kill(os.getpid(), 9)
    sys.addaudithook(lambda name, _: happened() if name.startswith(("open", "os.", "shutil.")) else None)
    flush = checkpoint.flush
    checkpoint.flush = lambda path: (happened(), flush(path), happened())[1]
    real = steps.save_checkpoint
    def save(*given):
        state.update(saving=True, events=0, saves=state["saves"] + 1)
        real(*given)
        state["saving"] = False
        if count is not None and state["saves"] == 3:
            count.write_text(str(state["events"]))
    steps.save_checkpoint = save

assert child(f"{out}/whole") == 0
if how == "step":
    numbers = random.Random(0).choices(range(1, settings.optim.steps + 1), k=trials)
    plans = [lambda n=n: stop_at(n, 9) for n in numbers]
else:
    from pathlib import Path
    assert child(f"{out}/counted", lambda: in_save(None, Path(out, "count"))) == 0
    events = int(Path(out, "count").read_text())
    assert events >= trials, events
    plans = [lambda n=1 + round(i * (events - 1) / (trials - 1)): in_save(n) for i in range(trials)]
for trial, plan in enumerate(plans):
    place = f"{out}/killed{trial}"
    print(child(place, plan), flush=True)
    left = [f for f in os.listdir(next(os.scandir(f"{place}/runs")).path + "/checkpoints")] if how == "save" else []
    print("leftover" if any(name.startswith(".") for name in left) else "clean", flush=True)
    assert child(place) == 0
"""


def traces(out: Path) -> dict[str, tuple[str, list[float]]]:
    """Of every run its final weights and the losses of its steps."""
    found = {}
    for run in out.glob("*/runs/*"):
        entries = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        found[run.parents[1].name] = (sha256(run / "model.safetensors"), [(e["step"], e["loss"]) for e in entries])
        assert not list(run.rglob(".step-*")), "a killed save left something"
    return found


@pytest.mark.parametrize(
    ("how", "trials"),
    [("save", 4), *(pytest.param(how, 20, marks=pytest.mark.fault) for how in ("step", "save"))],
)  # of steps, three are part of `make test`: tests/training/test_loop.py
def test_what_was_killed_goes_on_bit_equal(how: str, trials: int, tmp_path: Path) -> None:
    settings = json.dumps(replace(profile("smoke"), SHORT).model_dump(mode="json"))
    ended = completed("-c", PROGRAM, settings, how, str(trials), str(tmp_path), timeout=560)
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = ended.stdout.split()
    assert said[::2] == ["-9"] * trials, "each was killed where it was meant to be"
    if how == "save":
        assert {"leftover", "clean"} == set(said[1::2]), "in the middle of a save, and at its ends"
    whole, *killed = [traces(tmp_path)[name] for name in ("whole", *(f"killed{i}" for i in range(trials)))]
    assert len(killed) == trials
    assert killed == [whole] * trials

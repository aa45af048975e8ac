"""A program of `test_distributed_held_out`: what untrained models of every method measure on held-out images by as many
ranks as a case says, all forked from one process that has loaded everything; prints it, and the sizes of batches."""

import json
import sys
from pathlib import Path

import torch

from lcmae_core.config import parse
from lcmae_core.data.sources import open_source
from lcmae_core.training import distributed
from lcmae_core.training.distributed import joined, ranks, spread
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.objectives import OBJECTIVES
from tests.training.rank_cases import together


def measure(settings, place: Path) -> None:
    """By all ranks; each writes what it came to and of how many images each of its batches was."""
    with joined("cpu"):
        objective = OBJECTIVES[settings.method](settings, open_source(settings.data))
        model = objective.build()
        with torch.no_grad():  # the first weights of a projector or a head can be zero
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
        spread(model, settings)
        loader, sizes = evaluation_loader(settings, crops=objective.crops), []
        turn = loader.evaluation_in_turn
        loader.evaluation_in_turn = lambda share: (sizes.append(len(b.index)) or b for b in turn(share))
        found = objective.held_out(model, loader)
        (place / f"{ranks().number}.json").write_text(json.dumps([found, sizes]))
        distributed.wait_for_all()


def main() -> None:
    torch.set_num_threads(1)
    out, said = Path(sys.argv[2]), {}
    for name, (settings, world) in json.loads(sys.argv[1]).items():
        place = out / name.replace(" ", "_")
        place.mkdir(parents=True)
        codes = together(lambda rank, s=settings, place=place: measure(parse(s), place), world)
        assert codes == {0}, codes
        said[name] = [json.loads((place / f"{rank}.json").read_text()) for rank in range(world)]
    print(json.dumps(said))


if __name__ == "__main__":
    main()

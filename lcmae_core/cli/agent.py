"""torchrun as `lcmae ... --nproc` makes it: the same program, which says no traceback when it is told to end, and which
ends its ranks, saved, when the command that started it is gone."""

import logging
import os
import shutil
import sys

from lcmae_core.cli.rank import FOLDER, watch_parent


def main() -> int:
    """Run torchrun with the words of the command line; 128 and the signal's number where one ended it."""
    parent = os.getppid()
    watch_parent()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # what it says of every signal that it passes on; a lost rank is still an error of its log
    logging.getLogger("torch.distributed.elastic").setLevel(os.environ.get("LOGLEVEL", "ERROR"))
    try:
        run.main(sys.argv[1:])
    except SignalException as asked:
        return 128 + int(asked.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"lcmae: error: rank {rank} was lost ({_how(failure.exitcode)}) once more than it is started again",
              file=sys.stderr)  # fmt: skip
        return 1
    finally:
        if os.getppid() != parent:  # who else would clear up
            shutil.rmtree(os.environ.get(FOLDER, ""), ignore_errors=True)
    return 0


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


if __name__ == "__main__":
    raise SystemExit(main())

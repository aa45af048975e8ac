"""How one of several processes that train together (a rank) ends: an error of the user's making is said once, by the
first rank that meets it, and tells who started the ranks that there is no use in starting them again.

Who started them gives a folder for that in the environment. In it are `ended`, the exit code that the whole command is
to have, and by rank the number of its process. Without it (torchrun called by hand) a rank ends as any process does.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FOLDER = "LCMAE_RANKS"
"""Environment variable: the folder of those that were started together."""
ENDED, STOPPED = "ended", "stopped"
KEEPS_HOLD = 2.0
"""Seconds that a rank whose connection broke waits for another to say why."""
SAVING = 60.0
"""Seconds to save and to end for who lost its parent."""


def first_to_say(what: str, code: int) -> bool:
    """Whether nobody of those started together has said this before; a process alone always is the first.

    what: ENDED, after which none is started again, or STOPPED, which leaves that to who asked for it."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return True
    mine = Path(folder, f"{what}.{os.getpid()}")
    try:
        mine.write_text(str(code))
        os.link(mine, Path(folder, what))  # all at once, and for one of them alone
    except FileExistsError:
        return False
    except OSError:
        pass  # the folder is gone: better twice than never
    return True


def code_of_the_end(folder: str | Path) -> int | None:
    """The exit code that the whole command is to have; None where no rank has ended it."""
    try:
        return int(Path(folder, ENDED).read_text())
    except (OSError, ValueError):
        return None


def as_rank(main: Callable[[], int]) -> int:
    """`main` as one of several ranks, if it is one. After one of them has ended the work, all end with 0, so that
    torchrun starts none again, and those that lost their connection by that do so without a traceback."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return main()
    with suppress(OSError):
        Path(folder, f"pid.{os.environ.get('RANK', '0')}").write_text(str(os.getpid()))
    watch_parent()
    try:
        code: object = main()
    except SystemExit as left:
        code = left.code
    except Exception:
        end = time.monotonic() + KEEPS_HOLD
        while code_of_the_end(folder) is None:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    if code_of_the_end(folder) is not None:
        return 0
    return code if isinstance(code, int) else int(code is not None)


def watch_parent() -> None:
    """Look out, from a thread, for the death of who started this process, even if it was killed: then stop as at
    SIGTERM, and at once where that takes too long."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVING)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

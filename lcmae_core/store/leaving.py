"""How a process of ours begins and ends: soon. Python takes every loaded module apart first, which after torch and timm
lasts a second and more; nothing is gained by it in a process that is over.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

LOST = 120
"""Exit code of a program whose last output could not be written."""
NEVER_ASKED = "rfc3987_syntax"
"""What jsonschema, and with it nbformat, loads to check addresses in any script: a second, to build its grammar, and no
schema of notebooks asks for it."""


def leave(code: int) -> NoReturn:
    """End this process as it would end of itself, but without taking modules apart: threads that it waits for,
    functions of `atexit` and what is still to be written come first. Output that finds no room makes the exit code 120,
    as Python's own end does."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError, AttributeError):
            pass  # nobody reads it any more, it is closed, or there is none
        except OSError as error:
            os.write(2, f"{stream.name}: {error}\n".encode())
            code = code or LOST
    os._exit(code)


def begin_lightly() -> None:
    """In a process of ours: jsonschema does without `NEVER_ASKED`, as where it is not installed."""
    sys.modules.setdefault(NEVER_ASKED, None)  # type: ignore[arg-type]


def left_after(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main` and `leave` with its exit code; an exception that it does not catch ends the process as
    ever, and so does a program that has not loaded torch."""
    begin_lightly()
    try:
        code: object = main()
    except SystemExit as ended:
        code = ended.code
    watched = sys.getprofile() or sys.gettrace()  # by a profiler or debugger, which speaks when Python itself ends
    if "torch" not in sys.modules or not isinstance(code, int) or watched:
        raise SystemExit(code)
    leave(code)

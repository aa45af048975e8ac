"""How a process of ours ends: soon. Python takes every loaded module apart first, which after torch and timm lasts a
second and more; nothing is gained by it in a process that is over.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process as it would end of itself, without that: threads that it waits for, functions of `atexit` and
    what is still to be written come first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it, it is closed, or there is none
            stream.flush()
    os._exit(code)


def left_after(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main` and `leave` with its exit code; an exception that it does not catch ends the process as
    ever, and so does a program that has not loaded torch."""
    try:
        code: object = main()
    except SystemExit as ended:
        if "torch" not in sys.modules or not isinstance(ended.code, int):
            raise
        code = ended.code
    if "torch" not in sys.modules or not isinstance(code, int):
        raise SystemExit(code)
    leave(code)

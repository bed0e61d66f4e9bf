"""One of the processes of a training: `accelerate launch -m coretune.tuning.process FOLDER` (see `launching`)."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from coretune.tuning.launching import ERROR, read_job, tell_in, words_of_error
from coretune.tuning.training import train


def main() -> None:
    """Train the job in the folder that is named; an error is left there in words."""
    work = Path(sys.argv[1])
    job, driver = read_job(work)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        train(job, tell_in(work))
    except Exception as error:
        (work / ERROR).write_text(words_of_error(error), encoding="utf-8")
        raise


def _end_with(driver: int) -> None:
    """End this process when the one that wrote the job is gone."""
    while True:
        time.sleep(1.0)
        try:
            os.kill(driver, 0)
        except ProcessLookupError:
            os._exit(1)
        except PermissionError:
            pass


if __name__ == "__main__":
    main()

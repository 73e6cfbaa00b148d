# SPDX-License-Identifier: Apache-2.0
"""Choose whether horovodrun may keep its cache in the home folder."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = ".horovod"


def cache_options() -> list[str]:
    """Return the options of horovodrun for its cache of ssh checks.

    horovodrun creates the folder ~/.horovod and fails if it cannot.  In that case the result
    switches the cache off: horovodrun then repeats the checks at every start.
    """
    home = Path(os.path.expanduser("~"))
    folder = home / FOLDER
    place = folder if folder.exists() else home
    usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    # For root, os.access allows every folder, even in /proc, where no folder can be created.  So
    # create the folder now.
    if usable and not folder.exists():
        try:
            folder.mkdir()
        except OSError:
            usable = False
    return [] if usable else ["--disable-cache"]

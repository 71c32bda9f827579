"""When Winograd pays: the numbers built in, or those that `fastconv bench --tune` measured on this machine.

A profile decides which algorithm "auto" takes, so two machines with different ones may differ in the last bits of a
result; without a file, all machines decide alike.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple


class Profile(NamedTuple):
    """From which numbers on Winograd is faster than the direct sum."""

    #: The smaller of input and output channels: the transforms need many to share them.
    channels: int = 16
    #: Share of the tiles over an image that its outputs fill: outputs for each product, those of 4x4 tiles being 1.
    fill: float = 0.55
    #: Tiles, of a few images, times channels: what uses a transformed weight.
    work: int = 256


def location() -> Path:
    """Where the profile of this machine is: ``$FASTCONV_PROFILE``, or in the user's configuration directory."""
    if path := os.environ.get("FASTCONV_PROFILE"):
        return Path(path)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fastconv" / "profile.json"


@lru_cache(maxsize=1)
def current() -> Profile:
    """The profile of this machine, read once; the one built in where there is no file.

    Raises
    ------
    ValueError
        If the file is not a profile.
    """
    path = location()
    try:
        numbers = json.loads(path.read_text())
        return Profile(int(numbers["channels"]), float(numbers["fill"]), int(numbers["work"]))
    except OSError:
        return Profile()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a profile; delete it or write it anew with fastconv bench --tune. Received: {error!r}"
        ) from None


def write(profile: Profile) -> Path:
    """Make *profile* that of this machine, from the next process on."""
    path = location()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(profile._asdict()) + "\n")
    return path

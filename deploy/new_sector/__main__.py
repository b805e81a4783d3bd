"""The command behind `make new-sector NAME=water`."""

import sys

from core.errors import CityError
from deploy.new_sector import create


def main(arguments: list[str]) -> int:
    """Make the sector; one line says what to do next, or what is wrong."""
    name = arguments[0].strip() if arguments else ""
    if not name:
        sys.stderr.write("say which: make new-sector NAME=water\n")
        return 2
    try:
        create(name)
    except CityError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"domains/{name} is there and works: `chimata sectors` lists it.\n"
        "Now put the field's own standard into wire.py and decode.py, and what it\n"
        "observes into sector.py.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

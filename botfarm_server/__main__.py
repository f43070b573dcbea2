"""`python -m botfarm_server` and the command `botfarm`."""

from __future__ import annotations

import sys


def main() -> None:
    # Imported here: without the extra there is nothing to import.
    try:
        from botfarm_server.cli.main import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.exit(
            f"botfarm: {error.name} is not installed. The server and its command line "
            "come with: pip install 'pytest-botfarm[server]'"
        )
    run()


if __name__ == "__main__":
    sys.argv[1:] = sys.argv[1:] or ["serve"]  # `python -m botfarm_server` serves
    main()

"""The command line: python -m deploy serve | batch | measure.

Only reads arguments and hands them on, as python -m digitnet does.
"""

import argparse
import contextlib
import importlib
import os
import sys

COMMANDS = {
    "serve": "answer /predict over HTTP with as many workers as the crowd needs",
    "batch": "read folders of pictures into one CSV or Parquet table; go on where a broken job stopped",
    "measure": "measure what both cost and how they scale, as the table of docs/scale.md",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 done in part, 2 refused with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Reads handwritten digits on many workers.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        # Only the command that was asked for is imported: Ray alone takes seconds.
        if name in argv[:1]:
            try:
                work = importlib.import_module(f".{name}", __package__)
            except ModuleNotFoundError as error:
                print(f"{error.name} is missing; install it with: pip install -r deploy/requirements.txt", file=sys.stderr)
                return 2
            work.add_arguments(command)
            command.set_defaults(work=work)
    arguments = parser.parse_args(argv)
    try:
        return arguments.work.run(arguments)
    except Exception as error:
        # Imported no sooner: PyTorch takes two seconds, in which a command may have begun something else.
        from digitnet import CheckpointError, PictureError
        from digitnet.mnist import DataError

        from .cluster import ClusterError

        if not isinstance(error, (CheckpointError, ClusterError, DataError, PictureError)):
            raise
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # all is written and Ray is shut down: to take PyTorch, Arrow and Ray apart would take another second

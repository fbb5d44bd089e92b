"""The command line: python -m digitnet train | evaluate | predict | benchmark | export | convert.

Only reads arguments and hands them on; each command's work lives in its own module, imported when it is asked for.
"""

import argparse
import importlib
import io
import sys

COMMANDS = {
    "train": ("train_command", "train a network and save it as a checkpoint"),
    "evaluate": ("evaluate", "measure a checkpoint on MNIST's test set and on pen drawings, and write the report"),
    "predict": ("predict", "read pictures: one file, many, or whole folders"),
    "benchmark": ("benchmark", "measure speed and memory side by side with bare floors"),
    "export": ("export", "write the network as ONNX and check it against PyTorch"),
    "convert": ("convert", "turn published pen data (UCI pendigits, UNIPEN) into stroke files"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 done in part, 2 refused with a sentence."""
    for stream in (sys.stdout, sys.stderr):  # a terminal of another language shows what it can
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="python -m digitnet", description="Reads handwritten digits.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        # Only the command that was asked for is imported: torch alone takes seconds.
        if name in argv[:1]:
            work = importlib.import_module(f".{module}", __package__)
            work.add_arguments(command)
            command.set_defaults(work=work)
    arguments = parser.parse_args(argv)
    from .checkpoint import CheckpointError
    from .drawings import DrawingError
    from .mnist import DataError
    from .preprocess import PictureError

    try:
        return arguments.work.run(arguments)
    except (CheckpointError, DataError, DrawingError, PictureError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

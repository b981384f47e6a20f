#!/usr/bin/env python3
"""The command line of the zoo: `python cli.py --help`."""

import sys

from zoo.command_line import main

if __name__ == "__main__":
    sys.exit(main())

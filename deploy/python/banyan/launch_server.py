"""python3 -m banyan.launch_server --model-path … : `banyan serve` with the same options, in this process's place."""

import os
import sys

from .engine import find_banyan
from .wire import BanyanError


def main():
    try:
        banyan = find_banyan()
    except BanyanError as missing:
        sys.exit(f"banyan.launch_server: {missing}")
    os.execv(banyan, [banyan, "serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()

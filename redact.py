# SPDX-License-Identifier: Apache-2.0
"""Suppress a feature in a pre-trained GAN: `python redact.py --network=ffhq.pkl --feature=beard`; all options: `--help`."""

import sys

from stylegan_redact import host


def main() -> None:
    """Runs the command line. On Linux CPUs the process restarts itself once with better allocator settings (`stylegan_redact/host.py`)."""
    try:
        host.prepare()
        from stylegan_redact import cli  # Not before the shims are in place.

        cli.main()
    except ImportError as error:
        sys.stderr.write(f"Error: {host.explain(error)}\n")
        sys.exit(2)
    except KeyboardInterrupt:  # While the program starts; later ones are answered by the command.
        sys.stderr.write("\nAborted!\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

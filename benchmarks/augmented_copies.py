"""How often the copy that is upright is found, learned of the attacker's own faces alone.

    python benchmarks/augmented_copies.py                    # about 40 CPU seconds

OASIS with quarter turns; all 400 photos of ORL at 32 px, as photos that a search has found exactly.
By chance one in four is right. No photo of ORL takes part in anything that is learned.
"""

import argparse
import time

import torch

from fedaudit.attacks.adaptive.augmentation_disambiguation import (
    CENTERS,
    FACES,
    Copying,
    learn_score,
)
from fedaudit.data.orl import orl
from fedaudit.defenses.oasis import OASIS


def main() -> None:
    """Learn with several numbers of faces; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", nargs="+", type=int, default=[500, 1000, FACES])
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos = orl(size=32).images
    copying = Copying(OASIS().replay(1).images, (3, 32, 32))
    print(f"{'faces':>6} {'upright':>8} {'CPU s to learn':>15}")
    for faces in options.faces:
        started = time.process_time()
        judge = learn_score(copying, faces=faces, centers=CENTERS)
        seconds = time.process_time() - started
        right = sum(int(judge(copying.alike(photo)).argmax()) == 0 for photo in photos)
        print(f"{faces:6} {right:4}/{len(photos)} {seconds:15.1f}", flush=True)


if __name__ == "__main__":
    main()

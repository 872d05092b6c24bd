"""The command line, whose attacks keep how far they are ten times a second, not every 30 s.

Worker processes import this file too, as `__mp_main__`.
"""

from fedaudit.attacks.search.checkpoint import Checkpoint

Checkpoint.__init__.__defaults__ = (0.1,)

if __name__ == "__main__":
    from fedaudit.cli import main

    main()

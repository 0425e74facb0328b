"""``python -m bridgevla_ros.cli``."""

import sys

from bridgevla_ros.cli import main

sys.exit(main())

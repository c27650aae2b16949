"""Training of the detector and the detoxifier."""

import logging

# Where bitsandbytes is installed, every start would tell of a kernel that only its 4-bit products on a CPU would use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

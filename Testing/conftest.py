"""For all tests, and the processes that they start."""

import os

# Before anything brings in numpy: arrays are small here, and what every library's threads do is
# wait for each other. A suite without this takes twice as long on two cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

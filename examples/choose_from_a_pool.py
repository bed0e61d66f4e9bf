"""Choose 5% of the shipped pool by two methods and see how they differ. About a minute on two cores; needs [models]."""

from __future__ import annotations

import numpy as np

from coretune import Lab, read_pool, select
from coretune.data import DEMO_POOL
from coretune.engines import engine_for

pool = read_pool(DEMO_POOL)
with engine_for() as engine:  # one worker a GPU, else one a core
    lab = Lab(map=engine)
    by_quality = select(pool, "kmq", budget="5%", lab=lab, quality="length", draw="linear")
    at_random = select(pool, "random", budget="5%", lab=lab)

length = np.array([len(example.answer) for example in pool])
both = np.intersect1d(by_quality.rows, at_random.rows)
print(f"pool: {len(pool)} records, answers of {np.median(length):.0f} characters in the median")
for name, chosen in (("kmq", by_quality), ("random", at_random)):
    print(f"{name}: {len(chosen)} records, answers of {np.median(length[chosen.rows]):.0f} characters in the median")
print(f"both chose {len(both)} of the same records")

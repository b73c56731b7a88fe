"""The recipe of ``storybook-pixart`` and its consistency model, one stage at a time.

python -m training.sdxl vae           --data DATA --work WORK
python -m training.sdxl polish ...
python -m training.pixart transformer --data DATA --work WORK --minutes 60
"""

from __future__ import annotations

from training import recipe

MINUTES = {"transformer": 60.0, "consistency": 20.0}

if __name__ == "__main__":
    recipe.main("training.pixart", __doc__, MINUTES)

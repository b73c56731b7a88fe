"""The recipe of ``storybook-wuerstchen``, one stage at a time.

    python -m training.wuerstchen stage-a        --data DATA --work WORK --minutes 10 python -m
    training.wuerstchen image-encoder  --data DATA --work WORK --minutes 11 python -m
    training.wuerstchen stage-b        --data DATA --work WORK --minutes 67 python -m
    training.wuerstchen stage-c        --data DATA --work WORK --minutes 79 python -m
    training.wuerstchen polish         --data DATA --work WORK --minutes 4 python -m
    training.wuerstchen publish        --work WORK --out training/checkpoints/storybook-wuerstchen

Stage B needs Stage A and the image encoder, Stage C the image encoder, and the polish Stage B. Each
stage resumes from its checkpoint in WORK after an interruption. What each took is in
``docs/storybook.md``.
"""

from __future__ import annotations

from training import command

MINUTES = {
    "stage-a": 10.0,
    "image-encoder": 11.0,
    "stage-b": 67.0,
    "stage-c": 79.0,
    "polish": 4.0,
    "open-captions": 25.0,
}

if __name__ == "__main__":
    command.main("training.wuerstchen", __doc__, MINUTES)

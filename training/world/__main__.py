"""`python -m training.world`: writes the data set."""

from training.world.dataset import main

if __name__ == "__main__":
    main()

"""Models on this disk or on the hub: bundles, published checkpoints, and the files that they consist of."""

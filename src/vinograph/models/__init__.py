"""Models on this disk or on the hub: bundles, published checkpoints, and their files."""

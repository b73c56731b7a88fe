"""Opening models: published layouts, bundles, and the files that they consist of."""

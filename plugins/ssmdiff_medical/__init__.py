"""Medical files, an extra: volumes, series, and data sets by name."""

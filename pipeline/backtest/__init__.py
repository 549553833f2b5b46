"""Budget policies on rewards that are known beforehand: synthetic laws, or the recorded candidates of a run."""

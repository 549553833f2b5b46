"""What a report says of runs: settings to look at, figures with intervals, and who is on the front. No IO."""

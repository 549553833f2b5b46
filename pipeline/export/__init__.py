"""From scored rows to training data: examples in the forms that trainers read, their statistics, their card. No IO."""

"""One module per engine that generates. No Ray here; see ``actors.protocol`` for what each must have."""

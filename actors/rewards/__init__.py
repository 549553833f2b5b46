"""One module per kind of reward model. No Ray here; see ``actors.protocol`` for what each must have."""

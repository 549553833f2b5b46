"""The demo models: their problems, tokenizer, training and measuring."""

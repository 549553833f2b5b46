"""Proves from a run's files alone that its output is complete, without duplicates, and unchanged.

One module per subject: ``files`` (checksums), ``rows`` (results and rejects against the shards), ``replies`` (the
journal), ``budgets`` (grants and their ledger), ``totals`` (counts), ``origin`` (the input). ``check`` calls them all,
shard by shard, so that memory holds one shard whatever the run's size.
"""

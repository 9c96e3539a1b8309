"""Batches: many questions over several processes, their results in a store that survives the death of any of them."""

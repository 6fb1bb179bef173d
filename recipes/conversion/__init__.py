"""Models from elsewhere made ours, and ours made theirs: `theatre convert`.

Each format has one short file, which declares a `Format` (format.py): its fields and its tensors' names beside ours, in
tables that are read in both directions (fields.py, names.py). The rest knows no format: reading (checkpoint.py), carrying
tokenizers (carried_tokenizer.py), comparing outputs (parity.py), and the command (convert.py).
"""

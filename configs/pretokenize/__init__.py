"""What `experiments/tokenize_dataset.py` turns into token shards: one file per data set."""

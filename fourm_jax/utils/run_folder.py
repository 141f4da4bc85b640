"""Names of what lies in a run folder and in the work directory of one training."""

# A run folder (`make quickstart`): data, tokenizers and a trunk that belong together.
RAW = "raw"  # shards of raw records
DATA = "data"  # shards of tokens
TOKENIZERS = "tokenizers"  # one folder per tokenizer
TRUNK = "trunk"  # work directory of its training

# The work directory of one training.
CHECKPOINTS = "checkpoints"
INIT = "init.json"  # what became of every part of the weights that the run starts from
PARAMETERS = "parameters.txt"  # name, shape, type, size and sharding of each
TOKENIZER = "tokenizer"  # of a finished training of a tokenizer: weights and card
TRANSFER = "transfer"  # of a finished transfer: config, and weights of adapters or encoder

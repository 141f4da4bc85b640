"""WordPiece: count words, learn pieces, and the backend that uses them.

Learning is done here because the result of the HF trainer differs from run to run.
"""

import collections
import heapq
import itertools
from collections.abc import Iterable, Mapping

import tokenizers

PREFIX = "##"  # marks a piece inside a word


def count_words(texts: Iterable[str]) -> collections.Counter:
    """How often each word occurs, after the published normalization."""
    blank = make_backend({"[UNK]": 0})
    counts: collections.Counter = collections.Counter()
    for text in texts:
        normalized = blank.normalizer.normalize_str(text)
        counts.update(word for word, _ in blank.pre_tokenizer.pre_tokenize_str(normalized))
    return counts


def learn_pieces(word_counts: Mapping[str, int], num_pieces: int) -> list[str]:
    """Characters, then merges of the most frequent neighbours, as in byte-pair encoding.

    Ties go to the alphabetically first pair, so that equal counts give equal pieces anywhere.

    Args:
      word_counts: how often each normalized word occurs.
      num_pieces: most pieces to return; fewer where every word has become one piece.

    Raises:
      ValueError: more different characters than `num_pieces`.
    """
    words = [_characters(word) for word in sorted(word_counts)]
    counts = [word_counts[word] for word in sorted(word_counts)]
    pieces = sorted({piece for word in words for piece in word}, key=lambda p: (len(p) > 1, p))
    if len(pieces) > num_pieces:
        raise ValueError(
            f"{len(pieces)} different characters, but room for {num_pieces} pieces; "
            f"choose a larger vocab_size"
        )
    pair_counts: collections.Counter = collections.Counter()
    containing = collections.defaultdict(set)  # pair -> words that have it
    for i, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pair_counts[pair] += counts[i]
            containing[pair].add(i)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    known = set(pieces)
    while heap and len(pieces) < num_pieces:
        count, pair = heapq.heappop(heap)
        if -count != pair_counts[pair] or not count:
            continue  # outdated: a later entry has the present count
        piece = pair[0] + pair[1].removeprefix(PREFIX)
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
        changed = set()
        for i in containing.pop(pair):
            for old in itertools.pairwise(words[i]):
                pair_counts[old] -= counts[i]
                changed.add(old)
            words[i] = _merged(words[i], pair, piece)
            for new in itertools.pairwise(words[i]):
                pair_counts[new] += counts[i]
                containing[new].add(i)
                changed.add(new)
        for other in changed - {pair}:
            if pair_counts[other] > 0:
                heapq.heappush(heap, (-pair_counts[other], other))
    return pieces


def _characters(word: str) -> list[str]:
    return [character if i == 0 else PREFIX + character for i, character in enumerate(word)]


def _merged(word: list[str], pair: tuple[str, str], piece: str) -> list[str]:
    """The word with every occurrence of the pair replaced, from the left."""
    merged, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(piece)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def make_backend(ids: Mapping[str, int]) -> tokenizers.Tokenizer:
    """WordPiece over these ids, with the published normalizer and pre-tokenizer."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            dict(ids),
            unk_token="[UNK]",
            continuing_subword_prefix=PREFIX,
            max_input_chars_per_word=100,
        )
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece(prefix=PREFIX)
    return backend

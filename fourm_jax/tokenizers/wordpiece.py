"""WordPiece: count words, learn pieces, and the backend that uses them.

Learning is done here because the result of the HF trainer differs from run to run. The published
vocabulary brings its own rules; those of `make_backend` are for texts in any script.
"""

import collections
import heapq
import itertools
from collections.abc import Iterable, Mapping

import tokenizers
from tokenizers import normalizers, pre_tokenizers

PREFIX = "##"  # marks a piece inside a word
# A script without spaces makes one word of a sentence; a longer one is cut, which bounds time.
MAX_CHARACTERS = 500


def count_words(texts: Iterable[str]) -> collections.Counter:
    """How often each word occurs, after the normalization of `make_backend`."""
    blank = make_backend({"[UNK]": 0})
    counts: collections.Counter = collections.Counter()
    for text in texts:
        normalized = blank.normalizer.normalize_str(text)
        counts.update(word for word, _ in blank.pre_tokenizer.pre_tokenize_str(normalized))
    return counts


def learn_pieces(word_counts: Mapping[str, int], num_pieces: int) -> list[str]:
    """Characters, then merges of the most frequent neighbours, as in byte-pair encoding.

    Ties go to the alphabetically first pair, so that equal counts give equal pieces anywhere. A
    character beyond ASCII is a piece at the start of a word and inside of one, if all of them fit:
    where sentences are words, few characters are seen in both places.

    Args:
      word_counts: how often each normalized word occurs.
      num_pieces: most pieces to return; fewer where every word has become one piece.

    Raises:
      ValueError: more different characters than `num_pieces`.
    """
    words = [_characters(word) for word in sorted(word_counts)]
    counts = [word_counts[word] for word in sorted(word_counts)]
    seen = {piece for word in words for piece in word}
    everywhere = seen | {
        form
        for piece in seen
        if not (character := piece.removeprefix(PREFIX)).isascii()
        for form in (character, PREFIX + character)
    }
    fitting = everywhere if len(everywhere) <= num_pieces else seen
    pieces = sorted(fitting, key=lambda piece: (len(piece) > 1, piece))
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
    """WordPiece over these ids: lower case, accents and vowel signs kept.

    ASCII texts read as with the published normalizer. A character that no piece has is one [UNK]
    by itself and leaves the rest of its word readable.
    """
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            dict(ids),
            unk_token="[UNK]",
            continuing_subword_prefix=PREFIX,
            max_input_chars_per_word=MAX_CHARACTERS,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(lowercase=True, strip_accents=False)]
    )
    cuts = [rf"[\s\S]{{1,{MAX_CHARACTERS}}}", *_unreadable(ids)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            *(pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in cuts),
        ]
    )
    backend.decoder = tokenizers.decoders.WordPiece(prefix=PREFIX)
    return backend


def _unreadable(ids: Mapping[str, int]) -> list[str]:
    """Regexes of the characters that no piece has, and of those that none has where they stand."""
    first = {token for token in ids if len(token) == 1}
    inside = {token[-1] for token in ids if len(token) == 3 and token.startswith(PREFIX)}
    cases = (
        ("[^%s]", first | inside),
        (r"(?<=[\s\S])[%s]", first - inside),
        (r"\A[%s]", inside - first),
    )
    return [regex % _class(characters) for regex, characters in cases if characters]


def _class(characters: Iterable[str]) -> str:
    return "".join(rf"\x{{{ord(character):x}}}" for character in sorted(characters))

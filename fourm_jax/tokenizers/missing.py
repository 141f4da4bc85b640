"""What to do where a tokenizer is needed that is not at hand: the end of an error message."""

from collections.abc import Iterable

from fourm_jax.modalities.spec import ModalitySpec

HUB = "EPFL-VILAB/4M_tokenizers_"
# Published tokenizers by name and size of the vocabulary (docs/published.md#tokenizers).
PUBLISHED = {
    ("clip", 8192): f"{HUB}CLIP-B16_8k_224-448",
    ("depth", 8192): f"{HUB}depth_8k_224-448",
    ("dinov2", 8192): f"{HUB}DINOv2-B14_8k_224-448",
    ("dinov2_global", 8192): f"{HUB}DINOv2-B14-global_8k_16_224",
    ("edge", 8192): f"{HUB}edge_8k_224-512",
    ("imagebind", 8192): f"{HUB}ImageBind-H14_8k_224-448",
    ("imagebind_global", 8192): f"{HUB}ImageBind-H14-global_8k_16_224",
    ("normal", 8192): f"{HUB}normal_8k_224-448",
    ("rgb", 16384): f"{HUB}rgb_16k_224-448",
    ("semseg", 4096): f"{HUB}semseg_4k_224-448",
    ("text", 30_000): "text_tokenizer_4m_wordpiece_30k.json of github.com/apple/ml-4m",
}


def missing(spec: ModalitySpec, present: Iterable[str]) -> str:
    """Say that the tokenizer of `spec` is not among those `present`, and how to get it."""
    name = spec.tokenizer
    if not name:
        return "the modality has no tokenizer"
    published = PUBLISHED.get((name, spec.vocab_size))
    where = f"; published: {published}" if published else ""
    return (
        f"tokenizer {name!r} is not at hand (there: {sorted(present)}); give it as "
        f"fourm_jax.load(…, tokenizers={{{name!r}: FOLDER}}), or put it into tokenizers/{name} of "
        f"the run{where}"
    )

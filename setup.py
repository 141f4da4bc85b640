"""Package definition: lower bounds only; TensorFlow, accelerators and the Hub live in extras."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent

CORE = [
    "absl-py>=2.1",
    "array_record>=0.8",
    "clu>=0.0.12",
    "etils[epath]>=1.9",
    "flax>=0.12",
    "grain>=0.2.12",
    "jax>=0.10",
    "jaxtyping>=0.3",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",
    "Pillow>=11.0",
    "psutil>=6.0",
    "PyYAML>=6.0",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "tensorflow-datasets>=4.9.8",
    "tokenizers>=0.21",
    "tqdm>=4.66",
]

EXTRAS = {
    "test": [
        "beartype>=0.20",  # with jaxtyping: shapes in signatures are checked in tests
        "hypothesis>=6.100",
        "mypy>=1.15",
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "scikit-image>=0.24",
    ],
    "tensorflow": [  # the command `tfds` does not start without apache-beam and mlcroissant
        "apache-beam>=2.65",
        "importlib_resources>=6.0",
        "mlcroissant>=1.0.12",
        "tensorboard>=2.19",
        "tensorflow-cpu>=2.19",
    ],
    "hub": ["huggingface_hub>=0.30"],
    "labelers": [  # edges; and models that label pictures (torchvision: overlapping masks of SAM)
        "scikit-image>=0.24",
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.0",
    ],
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda12]>=0.10"],
}

setuptools.setup(
    name="fourm_jax",
    version="0.1.0",
    description="Any-to-any massively multimodal masked modelling in JAX",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["fourm_jax", "fourm_jax.*"]),
    package_data={"fourm_jax": ["**/*.json", "py.typed"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)

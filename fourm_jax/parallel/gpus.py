"""GPUs that a program can be compiled for without one: what XLA's compiler asks about a card.

Numbers are those of XLA's own descriptions of these cards (openxla/xla, folder
xla/backends/gpu/target_config/specs), which agree with the table of compute capabilities in
NVIDIA's CUDA programming guide; rates and bandwidths also with NVIDIA's data sheets.
"""

import dataclasses

from fourm_jax.utils import device_memory

_SPECS = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory_per_core}
  shared_memory_per_block_optin: {shared_memory_per_block}
  threads_per_core_limit: 2048
  core_count: {num_cores}
  fpus_per_core: {units_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2_cache}
  clock_rate_ghz: {clock_ghz}
  device_memory_size: {total_bytes}
  cuda_compute_capability {{ major: {capability} feature_extension: {extension} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  driver_version: "{cuda}.0.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: {cuda} }}
device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One card.

    Attributes:
      name: as JAX calls the device.
      total_bytes: memory that CUDA states, a little less than what is printed on the card.
      bandwidth: of the memory, bytes per second.
      flops: dense bfloat16 operations per second.
      link_bandwidth: NVLink to the other cards of the host, bytes per second in one direction.
      host_bandwidth: PCIe to the memory of the host, bytes per second in one direction.
      num_cores: streaming multiprocessors.
      units_per_core: float32 units of each.
      l2_cache: bytes.
      clock_ghz: the highest.
      capability: major number of the compute capability; the minor one is 0.
      extension: instructions beyond those of the capability, as XLA calls them.
      shared_memory_per_core: bytes.
      shared_memory_per_block: bytes, the most that a block may ask for.
    """

    name: str
    total_bytes: int
    bandwidth: int
    flops: float
    link_bandwidth: float
    host_bandwidth: float
    num_cores: int
    units_per_core: int
    l2_cache: int
    clock_ghz: float
    capability: int
    extension: str
    shared_memory_per_core: int
    shared_memory_per_block: int

    @property
    def memory_bytes(self) -> int:
        """What a program may use with the setting that the documentation recommends."""
        return round(self.total_bytes * device_memory.LARGE_SHARE)

    def target(self, cuda: int) -> str:
        """The description for the compiler, of version `cuda` of CUDA, e.g. 13."""
        return _SPECS.format(cuda=cuda, **dataclasses.asdict(self))


_H100 = Gpu(
    name="NVIDIA H100 80GB HBM3",
    total_bytes=84_929_347_584,
    bandwidth=3_352_320_000_000,
    flops=989e12,
    link_bandwidth=450e9,
    host_bandwidth=64e9,
    num_cores=132,
    units_per_core=128,
    l2_cache=50 * 2**20,
    clock_ghz=1.98,
    capability=9,
    extension="ACCELERATED_FEATURES",
    shared_memory_per_core=228 * 2**10,
    shared_memory_per_block=227 * 2**10,
)

GPUS = {
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        total_bytes=85_100_068_864,
        bandwidth=2_039_040_000_000,
        flops=312e12,
        link_bandwidth=300e9,
        host_bandwidth=32e9,
        num_cores=108,
        units_per_core=64,
        l2_cache=40 * 2**20,
        clock_ghz=1.41,
        capability=8,
        extension="NONE",
        shared_memory_per_core=164 * 2**10,
        shared_memory_per_block=163 * 2**10,
    ),
    "h100": _H100,
    # XLA's file has 141 GiB; a card of this kind states 139.8
    "h200": dataclasses.replace(
        _H100,
        name="NVIDIA H200",
        total_bytes=150_109_880_320,
        bandwidth=4_800_000_000_000,
    ),
}

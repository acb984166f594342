"""The GPUs that floors are computed for, and how many programs of a kernel one multiprocessor runs at once.

Sources. Bandwidth and multiprocessors: the data sheets of the NVIDIA A100 80GB SXM, H100 SXM and H200 SXM and of the
AMD Instinct MI300X. Cache: the white papers of the A100 and the H100 (L2) and of CDNA 3 (Infinity Cache). The limits of
one multiprocessor: NVIDIA's CUDA C++ Programming Guide, technical specifications by compute capability, and the steps
in which registers and shared memory are given out from the occupancy calculator of Nsight Compute; for AMD the ROCm
table "AMD GPU specifications" and LLVM's AMDGPU usage guide.
"""

from dataclasses import dataclass
from functools import partial

# The time of a launch beyond that of its kernel: an assumption, not a property of these devices. NVIDIA's article
# "Getting Started with CUDA Graphs" (2019) gives 3.4 us for each kernel of 2.9 us in a CUDA graph, on a V100.
LAUNCH_SECONDS = 0.5e-6


@dataclass(frozen=True)
class Device:
    """A GPU. A multiprocessor is AMD's compute unit, a warp AMD's wavefront, a program a thread block.

    Args:
        target: the key of `binaries.TARGETS` for which kernels are compiled.
        bandwidth: the peak of the memory, in bytes per second.
        cache: bytes of the last cache before memory.
        registers, shared, warps, programs: of one multiprocessor: the number of 32-bit registers, the bytes of shared
            memory, and the largest numbers of warps and programs at once.
        shared_reserved, shared_step: a program takes the bytes of shared memory that it asks for, and shared_reserved
            bytes for the system; the sum is rounded up to a multiple of shared_step.
    """

    name: str
    target: str
    bandwidth: float
    cache: int
    multiprocessors: int
    registers: int
    shared: int
    warps: int
    programs: int
    shared_reserved: int
    shared_step: int
    warp_size: int

    def resident(self, num_warps: int, registers: int, shared: int) -> int:
        """The programs that run on one multiprocessor at once; 0 if not even one fits.

        Args:
            num_warps: of one program.
            registers: of one thread.
            shared: bytes of one program.
        """
        # Each of the four schedulers has a quarter of the registers; a thread gets them in steps of 8.
        warp_registers = _up(max(registers, 1), 8) * self.warp_size
        warps = min(self.warps, self.registers // 4 // warp_registers * 4)
        resident = min(self.programs, warps // num_warps)
        program_shared = _up(shared + self.shared_reserved, self.shared_step)
        return min(resident, self.shared // program_shared) if program_shared else resident


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


_nvidia = partial(Device, registers=65_536, warps=64, programs=32, shared_reserved=1024, shared_step=128, warp_size=32)
_amd = partial(Device, registers=4 * 512 * 64, warps=32, programs=16, shared_reserved=0, shared_step=512, warp_size=64)
DEVICES = (
    _nvidia("A100", "sm_80", 2.039e12, 40 * 2**20, 108, shared=164 * 2**10),
    _nvidia("H100", "sm_90", 3.35e12, 50 * 2**20, 132, shared=228 * 2**10),
    _nvidia("H200", "sm_90", 4.8e12, 50 * 2**20, 132, shared=228 * 2**10),
    _amd("MI300X", "gfx942", 5.3e12, 256 * 2**20, 304, shared=64 * 2**10),
)

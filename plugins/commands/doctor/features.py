"""The features of a processor that make llama.cpp fast."""

from selfloop import system

# as Linux names them -> as llama.cpp does
FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}


def features() -> list[str] | None:
    """Return which of `FEATURES` the processor has; None where the system does not tell."""
    flags = system.processor_flags()
    return None if flags is None else [name for name in FEATURES if name in flags]

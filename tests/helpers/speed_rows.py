"""A row of the speed benchmark, of which tests change columns."""

from benchmarks.speed.rows import SpeedRow
from tests.helpers.studies import WHERE

ROW = SpeedRow(
    what="op",
    case="se_tail",
    mode="forward_backward",
    shape="32x64x32x32",
    dtype="float32",
    memory_format="channels_last",
    implementation="timm_eager",
    cuda_graph=False,
    n=25,
    median=0.004,
    p20=0.0039,
    p80=0.0043,
    ratio=2.5,
    ratio_p20=2.25,
    ratio_p80=2.75,
    bytes_moved=8 * 8_388_608,
    copy_percent=83.9,
    copy_bandwidth=2e10,
    conditions=WHERE,
)

"""Rows of deployment as Markdown: a small table for the README, and all numbers for benchmarks/results."""

from collections.abc import Sequence

from benchmarks.deploy.rows import EAGER, FORMS, DeployRow, newest

_NOTE = """Nets in PyTorch and as files of `seattn export`, in float32, except the 8-bit files; PyTorch runs in
channels_last, and its sizes are of float32 weights. {images} test images; all forms of a net were timed in turns.
"""


def render_deploy(rows: Sequence[DeployRow]) -> str:
    """Markdown for the README: a line for each form but "folded", with columns for each net; empty without rows."""
    rows = newest(rows)
    if not rows:
        return ""
    nets = list(dict.fromkeys(row.name for row in rows))
    columns = [f"`{net.partition('.')[0]}`: MB | top-1 % | 1 image, ms | 32 at once, images/s" for net in nets]
    text = [
        _NOTE.format(images=f"{rows[-1].images:,}"),
        f"| {rows[-1].conditions.machine} | {' | '.join(columns)} |",
        "| --- |" + " --- | --- | --- | --- |" * len(nets),
    ]
    for form, label in FORMS.items():
        cells = [cell for net in nets for cell in _cells([r for r in rows if (r.name, r.form) == (net, form)])]
        if form != "folded" and any(cells):
            text.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(text) + f"\n\n{_conditions(rows)}\n"


def render_deploy_page(rows: Sequence[DeployRow]) -> str:
    """Markdown for benchmarks/results: a table for each net of one device, with the spread of the times."""
    tables = []
    for net in dict.fromkeys(row.name for row in rows):
        of_net = [row for row in newest(rows) if row.name == net]
        text = [
            f"| `{net}`, {of_net[-1].conditions.machine} | MB | top-1 % (95 % interval) | 1 image, ms (p20 to p80) "
            "| PyTorch's time over it | 32 images, ms (p20 to p80) | PyTorch's time over it |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for form, label in FORMS.items():
            of_form = {row.batch_size: row for row in of_net if row.form == form}
            if of_form:
                first = next(iter(of_form.values()))
                interval = f"{100 * first.top1_low:.2f} to {100 * first.top1_high:.2f}"
                cells = [f"{first.bytes / 1e6:.2f}", f"{100 * first.top1:.2f} ({interval})"]
                for batch_size in (1, 32):
                    cells += _spread_cells(of_form.get(batch_size))
                text.append(f"| {label} | {' | '.join(cells)} |")
        tables.append("\n".join(text) + f"\n\n{of_net[-1].images:,} test images; {_conditions(of_net)}\n")
    return "\n".join(tables)


def _cells(rows: Sequence[DeployRow]) -> list[str]:
    """Size, accuracy, latency and throughput of one form of a net; empty where they were not measured."""
    median = {row.batch_size: row.median for row in rows}
    return [
        f"{rows[-1].bytes / 1e6:.2f}" if rows else "",
        f"{100 * rows[-1].top1:.2f}" if rows else "",
        f"{1e3 * median[1]:.3g}" if 1 in median else "",
        f"{32 / median[32]:,.0f}" if 32 in median else "",
    ]


def _spread_cells(row: DeployRow | None) -> list[str]:
    if row is None:
        return ["", ""]
    times = f"{1e3 * row.median:.3g} ({1e3 * row.p20:.3g} to {1e3 * row.p80:.3g})"
    return [times, "" if row.form == EAGER else f"{row.ratio:.2f} × ({row.ratio_p20:.2f} to {row.ratio_p80:.2f})"]


def _conditions(rows: Sequence[DeployRow]) -> str:
    """The versions of the runtimes, and the commit and the date of each run."""
    exported = [row for row in rows if row.form.startswith(("onnxruntime", "openvino"))]
    runtimes = dict.fromkeys(f"{row.form.removesuffix('_int8')} {row.version}" for row in exported)
    where = rows[-1].conditions
    runs = dict.fromkeys(f"`{row.conditions.commit}` of {row.conditions.date}" for row in rows)
    return f"torch {where.torch}, {', '.join([*runtimes, f'timm {where.timm}'])}, seattn at {', '.join(runs)}."

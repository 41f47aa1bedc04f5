"""A long list of parameters in groups, each below a heading."""

import re


# Headings of a long list of parameters, and what stands below them.
OPTIONS = {
    "What counts": "where weights class_weights ignore_index",
    "The label": "label_smoothing margin pos_weight",
    "The logits": "class_mask z_loss logit_soft_cap temperature",
    "The result": "reduction normalizer",
    "Devices": "class_axis_name batch_axis_name",
}
_LONG = 10  # parameters that need no headings


def with_headings(lines: list[str]) -> list[str]:
    """More than ten parameters in groups: what a row counts, its label, …"""
    if "Args:" not in lines:
        return lines
    start = lines.index("Args:") + 1
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    entries: dict[str, list[str]] = {}
    for line in lines[start:end]:
        if name := re.match(r"  (\w+)(?:, \w+)*:", line):
            entries[name[1]] = own = []
        own.append(line)
    if len(entries) <= _LONG:
        return lines
    made = []
    for title, names in OPTIONS.items():
        found = [entries.pop(name) for name in names.split() if name in entries]
        if found:
            made += ["", f"{title}:", *(line for own in found for line in own)]
    rest = [line for own in entries.values() for line in own]
    return [*lines[:start], *rest, *made, *lines[end:]]

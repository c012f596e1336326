"""Which branches of the Verifier that refuse something do no tests reach? `scripts/coverage` runs this.

Standard input: the JSON of `llvm-cov export`. A branch that refuses is a code region of attestation/src, outside of test modules, that
is a `?` or builds an error or a factor that fails. Regions of several instances of one generic function count as one.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFUSES = re.compile(r"^\?$|\bErr\b|\bError::|[Mm]alformed|\bmisuse\(|\brefuse\w*\(|\bFactor::fail\b|\bfail\w*\(|\bbad\(|\bwrong\w*\(|\bneed\(|=> None\b|\breturn None\b|return false")
# Its errors are no refusals, but reasons in words.
WORDS = ROOT / "attestation/src/policy/explain.rs"
AIM = 95


def code(path):
    """The lines of a file before its test module."""
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines):
        if line.startswith("#[cfg(test)]") and lines[number + 1].startswith(("mod tests", "pub(crate) mod tests", "pub(super) mod tests")):
            if lines[number + 1].endswith("{"):
                return lines[:number]
    return lines


def text(lines, region):
    (line, column, end_line, end_column) = region
    if line == end_line:
        return lines[line - 1][column - 1 : end_column - 1]
    inner = lines[line : end_line - 1]
    return "\n".join([lines[line - 1][column - 1 :], *inner, lines[end_line - 1][: end_column - 1]])


def regions(export):
    """Highest count of each code region, by file."""
    out = {}
    for function in export["data"][0]["functions"]:
        for region in function["regions"]:
            *place, count, file, _expanded, kind = region
            name = function["filenames"][file]
            if kind == 0:
                key = (name, tuple(place))
                out[key] = max(out.get(key, 0), count)
    return out


def innermost(places):
    """The regions without those that hold another one: a whole function body is no branch."""
    places = sorted(places, key=lambda p: (p[0], p[1], (-p[2], -p[3])))
    out = []
    for at, place in enumerate(places):
        following = places[at + 1] if at + 1 < len(places) else None
        if following is None or (following[2], following[3]) > (place[2], place[3]) or (following[0], following[1]) >= (place[2], place[3]):
            out.append(place)
    return out


def main():
    by_file = {}
    for (name, place), count in regions(json.load(sys.stdin)).items():
        path = pathlib.Path(name)
        if path.is_relative_to(ROOT / "attestation/src") and "tests" not in path.parts and path != WORDS:
            by_file.setdefault(path, {})[place] = count
    total, missed = 0, []
    for path, counts in sorted(by_file.items()):
        lines = code(path)
        places = [place for place in innermost(counts) if place[2] <= len(lines)]
        for place in places:
            source = text(lines, place).strip()
            if REFUSES.search(source):
                total += 1
                if counts[place] == 0:
                    missed.append((path.relative_to(ROOT), place[0], lines[place[0] - 1].strip() if source == "?" else source.split("\n")[0]))
    for path, line, source in missed:
        print(f"  {path}:{line}  {source[:110]}")
    covered = 100 * (total - len(missed)) / total
    print(f"{total - len(missed)} of {total} branches that refuse are reached by tests: {covered:.1f} %, {len(missed)} are not (above)")
    if covered < AIM:
        sys.exit(f"less than {AIM} %")


main()

#!/bin/bash
# Checks what the compiler doesn't: lengths of lines and files, and imports between modules. Prints each place that
# breaks a rule.
set -euo pipefail
cd "$(dirname "$0")/.."
most_columns=120
most_lines=600

# Files of the repository and new ones that are not ignored.
sources() { git ls-files --cached --others --exclude-standard -- "$@"; }
failed=0

# Columns are characters, not bytes. A line that has a URL may be as long as that makes it.
mapfile -t files < <(sources '*.rs' '*.wgsl' '*.ts' '*.h' '*.hpp' '*.kt' '*.swift')
long=$(python3 - "$most_columns" "${files[@]}" <<'END'
import os, re, sys
for name in filter(os.path.exists, sys.argv[2:]):
    for number, line in enumerate(open(name, encoding="utf-8"), 1):
        columns = len(line.rstrip("\n"))
        if columns > int(sys.argv[1]) and not re.search(r"https?://", line):
            print(f"{name}:{number}: {columns} columns")
END
)
if [ -n "$long" ]; then
    echo "$long"
    echo "check-style: these lines have more than $most_columns columns; break them" >&2
    failed=1
fi

# Headers are one file each for those who include them; the rest can be divided.
for file in "${files[@]}"; do
    case "$file" in ffi/include/bolmo.h | ffi/include/bolmo.hpp) continue ;; esac
    [ -e "$file" ] || continue
    lines=$(wc -l <"$file")
    if [ "$lines" -gt "$most_lines" ]; then
        echo "$file: $lines lines"
        echo "check-style: a source file has at most $most_lines lines; divide it" >&2
        failed=1
    fi
done

scripts/check-modules.py || failed=1
exit $failed

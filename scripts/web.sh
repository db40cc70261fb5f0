#!/bin/bash
# Builds the browser package: bindings/web/dist, and with `example` the page in examples/web/dist too.
#
#   scripts/web.sh [package|example]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=wasm32-unknown-unknown
build_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
web=bindings/web
# The limit of the file without constraints.
most_gzipped=420000

npm_ci() { (cd "$1" && npm ci --silent --no-audit --no-fund --ignore-scripts); }

# The glue first: it is built for this machine, by its compiler.
(cd "$web/glue" && CARGO_TARGET_DIR="$build_dir/glue" cargo build --release --locked)
npm_ci "$web"
. scripts/wasm-target.sh
wasm_opt=$web/node_modules/.bin/wasm-opt

# variant FOLDER PROFILE [CARGO_OPTION…]: makes the wasm file and its glue, in dist and, for its types, in src
variant() {
    local name=$1 profile=$2 made=$build_dir/web/$1 optimize=-Oz flags=${RUSTFLAGS-} built
    shift 2
    if [ "$profile" = web-cpu ]; then
        optimize="-O3 --enable-simd" flags="$flags -C target-feature=+simd128"
    fi
    # A folder for each profile: other flags build everything again.
    built=$build_dir/wasm${profile#web}
    RUSTFLAGS=$flags CARGO_TARGET_DIR="$built" \
        cargo build --profile "$profile" --target "$target" -p bolmo-web --no-default-features "$@"
    rm -rf "$made" && mkdir -p "$made"
    "$build_dir/glue/release/bolmo-web-glue" "$built/$target/$profile/bolmo_web.wasm" "$made"
    # Features that every browser with WebGPU has, and that the CPU's file needs.
    # shellcheck disable=SC2086 # options
    "$wasm_opt" $optimize --enable-bulk-memory --enable-bulk-memory-opt --enable-nontrapping-float-to-int \
        --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
        --enable-call-indirect-overlong "$made/bolmo_bg.wasm" -o "$made/optimized.wasm"
    mv "$made/optimized.wasm" "$made/bolmo_bg.wasm"
    rm -rf "$web/src/$name" && mkdir -p "$web/src/$name" "$web/dist/$name"
    cp "$made/bolmo.d.ts" "$web/src/$name"
    cp "$made/bolmo.d.ts" "$made/bolmo.js" "$made/bolmo_bg.wasm" "$web/dist/$name"
}

rm -rf "$web/dist"
variant wasm web --features gpu
variant wasm-constraints web --features gpu,constraints
# One file: who needs it has a slow computer in any case, and a choice of two would be one more thing to get wrong.
variant wasm-cpu web-cpu --features constraints
(cd "$web" && npm run --silent build)
cp LICENSE "$web"

gzipped() { gzip -9 -c "$1" | wc -c; }
echo "web: sizes in bytes, plain and gzipped"
for file in "$web"/dist/{wasm,wasm-constraints,wasm-cpu}/bolmo_bg.wasm "$web"/dist/wasm/bolmo.js "$web"/dist/*.js; do
    printf '%9d %9d  %s\n' "$(wc -c <"$file")" "$(gzipped "$file")" "${file#"$web"/dist/}"
done
size=$(gzipped "$web/dist/wasm/bolmo_bg.wasm")
if [ "$size" -gt "$most_gzipped" ]; then
    echo "web: the wasm file has $size bytes gzipped, more than the limit of $most_gzipped" >&2
    exit 1
fi

[ "${1-example}" = example ] || exit 0
[ -d "$root/examples/web" ] || exit 0
npm_ci examples/web
(cd examples/web && npm run --silent build)

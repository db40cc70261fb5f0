#!/bin/bash
# Installs what the project needs and this machine lacks, and says what it installs. Safe to repeat.
#
#   scripts/setup.sh toolchain       a C linker and Rust, for `make demo` and `make build`
#   scripts/setup.sh lint            rustfmt, clippy and Python as well, for `make lint` and `make test`
#   scripts/setup.sh nodejs          Node.js and npm, for tests that concern browsers
#   scripts/setup.sh browser         Node.js and Chromium, for tests in a browser
#   scripts/setup.sh firefox         Node.js and Firefox, for tests in another browser
#   scripts/setup.sh docs            Doxygen, for `make docs`
#   scripts/setup.sh c               C and C++ compilers, CMake and what else tests of the C library need
#   scripts/setup.sh kotlin          a JDK, Maven and what Maven needs to build and test the Kotlin package
#   scripts/setup.sh arm             a compiler, a linker and an emulator for 64-bit Arm, for `make test-arm`
#   scripts/setup.sh swift FOLDER    Swift 6, for `make swift` and `make test-swift`; FOLDER/run COMMAND… runs commands
#                                    with it; it is unpacked below FOLDER where the system's packages have none
#   scripts/setup.sh llama           C and C++ compilers, CMake and Python with venv, for `make bench-llama`
#   scripts/setup.sh shaders BOLMO   a driver that runs the shaders, for tests of them; BOLMO is the built command
set -euo pipefail

rust=1.95 # as rust-version in Cargo.toml
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# install WHY PACKAGE…: Debian and Ubuntu packages
install() {
    local why=$1 sudo=()
    shift
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    if ! has apt-get || { [ "${#sudo[@]}" != 0 ] && ! has sudo; }; then
        say "$why. Please install it; on Debian and Ubuntu the packages are: $*"
        exit 1
    fi
    say "$why: installing $* with apt-get"
    ${sudo[@]+"${sudo[@]}"} apt-get update -qq
    ${sudo[@]+"${sudo[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2
}

can_link() { echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null; }

has_rust() {
    local version
    version=$(rustc --version 2>/dev/null | cut -d' ' -f2) && has cargo &&
        [ "$(printf '%s\n' "$rust" "$version" | sort -V | head -n1)" = "$rust" ]
}

toolchain() {
    if ! can_link; then
        if [ "$(uname)" = Darwin ]; then
            say "there is no C linker: run \`xcode-select --install\`"
            exit 1
        fi
        install "there is no C linker" gcc libc6-dev
    fi
    has_rust && return
    if has rustup; then
        say "Rust $rust or newer is needed: installing $rust with rustup, for this folder only"
        rustup toolchain install "$rust" --profile minimal
        rustup override set "$rust"
    else
        has curl || install "rustup's installer needs curl" curl ca-certificates
        say "Rust $rust or newer is needed: installing $rust with rustup from https://rustup.rs"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --profile minimal --default-toolchain "$rust"
    fi
    has_rust || { say "Rust $rust is still not what \`rustc\` runs: see PATH and RUSTUP_TOOLCHAIN"; exit 1; }
}

lint() {
    toolchain
    has python3 || install "scripts/check-style.sh needs Python" python3
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
        return
    fi
    has rustup || { say "rustfmt and clippy are missing: install them as you installed Rust"; exit 1; }
    say "adding rustfmt and clippy with rustup"
    rustup component add rustfmt clippy
}

docs() {
    has doxygen || install "there is no doxygen" doxygen
}

nodejs() {
    { has node && has npm; } || install "there is no Node.js" nodejs npm
}

has_chromium() { [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; }

browser() {
    nodejs
    has_chromium && return
    install "there is no Chromium" chromium fonts-dejavu-core
    # Ubuntu's package of this name only installs a snap.
    has_chromium && return
    say "there is still no /usr/bin/chromium: install a Chromium or Chrome, and name it in CHROMIUM"
    exit 1
}

firefox() {
    nodejs
    local candidate
    for candidate in "${FIREFOX-}" /usr/bin/firefox-esr /usr/bin/firefox; do
        [ -x "$candidate" ] && return
    done
    install "there is no Firefox" firefox-esr
}

c() {
    toolchain
    # A program, and the package that has it.
    local pair missing=()
    for pair in g++:g++ clang:clang cmake:cmake make:make pkg-config:pkg-config readelf:binutils valgrind:valgrind; do
        has "${pair%%:*}" || missing+=("${pair#*:}")
    done
    [ "${#missing[@]}" = 0 ] || install "tests of the C library need more" "${missing[@]}"
    # Debian has the sanitizers' runtime in a package of its own, named for clang's version.
    can_sanitize && return
    install "clang has no sanitizers" "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
    can_sanitize || { say "clang still can't link with -fsanitize=address,undefined"; exit 1; }
}

arm() {
    toolchain
    [ "$(uname -sm)" = "Linux aarch64" ] && return
    local missing=()
    has aarch64-linux-gnu-gcc || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    has qemu-aarch64 || missing+=(qemu-user)
    [ "${#missing[@]}" = 0 ] || install "tests for 64-bit Arm need more" "${missing[@]}"
    has rustup || { say "Rust's standard library for aarch64-unknown-linux-gnu is needed: install it"; exit 1; }
    rustup target add aarch64-unknown-linux-gnu
}

has_jdk() {
    local version
    version=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p') && [ "${version:-0}" -ge 17 ]
}

kotlin() {
    toolchain
    { has_jdk && has mvn; } || install "the Kotlin package needs Maven and a JDK, 17 or newer" default-jdk-headless maven
    has_jdk || { say "javac is still older than 17: install a newer JDK, and see PATH"; exit 1; }
    # Downloaded now, so that a failure of the network doesn't look like one of the build.
    local folder pom stamp
    folder=$(cd "$(dirname "$0")/.." && pwd)
    pom=$folder/bindings/kotlin/pom.xml
    stamp=$folder/bindings/kotlin/target/resolved-$(cksum <"$pom" | tr ' ' -)
    [ -e "$stamp" ] && return
    say "downloading plugins and libraries for Maven"
    local dependency=org.apache.maven.plugins:maven-dependency-plugin:3.9.0
    mvn -B -ntp -q -f "$pom" -P android "$dependency:resolve" "$dependency:resolve-plugins" >/dev/null || {
        say "Maven can't download what the Kotlin package needs: see the errors of \`mvn -f $pom package\`"
        exit 1
    }
    mkdir -p "$(dirname "$stamp")"
    touch "$stamp"
}

# Whether `swift` is version 6 or newer.
has_swift() {
    local version
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge 6 ]
}

# swift FOLDER
swift_toolchain() {
    local candidate
    if ! has_swift; then
        candidate=$(apt-cache policy swiftlang 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*\)\..*/\1/p' || true)
        if [ "${candidate:-0}" -lt 6 ]; then
            "$(dirname "$0")/swift-toolchain.sh" "$1"
            return
        fi
        install "there is no Swift 6" swiftlang libc6-dev libstdc++-14-dev
        has_swift || { say "\`swift --version\` still doesn't say 6 or newer: see PATH"; exit 1; }
    fi
    mkdir -p "$1"
    printf '#!/bin/sh\nexec "$@"\n' >"$1/run"
    chmod +x "$1/run"
}

llama() {
    local missing=()
    has g++ || missing+=(g++)
    has cmake || missing+=(cmake)
    has make || missing+=(make)
    # Debian leaves it out of python3.
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    [ "${#missing[@]}" = 0 ] || install "llama-cpp-python needs more" "${missing[@]}"
}

can_sanitize() {
    echo 'int main(void) { return 0; }' | clang -fsanitize=address,undefined -x c - -o /dev/null 2>/dev/null
}

# Whether something but the CPU device is listed that can be used.
runs_shaders() {
    "$1" devices --json | tr '{' '\n' | grep '"usable":true' | grep -qv '"kind":"cpu"'
}

shaders() {
    runs_shaders "$1" && return
    if [ "$(uname)" != Linux ]; then
        say "no adapter runs the shaders: see \`bolmo devices\`"
        exit 1
    fi
    # Without a Vulkan loader or a driver, only the CPU device is listed.
    install "tests of the shaders need a Vulkan driver" libvulkan1 mesa-vulkan-drivers
    runs_shaders "$1" || { say "there is still no adapter that runs the shaders: see \`bolmo devices\`"; exit 1; }
}

case "${1-}:$#" in
toolchain:1 | lint:1 | nodejs:1 | browser:1 | firefox:1 | docs:1 | c:1 | kotlin:1 | arm:1 | llama:1) "$1" ;;
shaders:2) shaders "$2" ;;
swift:2) swift_toolchain "$2" ;;
*)
    sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
